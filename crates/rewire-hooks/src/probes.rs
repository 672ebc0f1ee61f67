//! The hook that reads the gradients at hook points.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use rewire_tensor::zeros_like;

use crate::any_rank::AnyRank;
use crate::cache::ActivationCache;
use crate::hook::Hook;
use crate::point::HookPoint;
use crate::recorder::Filter;

/// Adds a zero leaf tensor to the activation at each point that it accepts.
///
/// The gradient of the leaf equals the gradient of the activation. Unlike the gradients of
/// intermediate tensors, it survives the backward pass.
///
/// Probe only the points that you need. Before the first probe, nothing is on the tape if the
/// weights are not tracked, and the backward pass does not run through that part of the network.
pub struct GradientProbes<B: AutodiffBackend> {
    accepts: Filter,
    leaves: BTreeMap<HookPoint, AnyRank<B>>,
}

impl<B: AutodiffBackend> GradientProbes<B> {
    /// Probes every point.
    #[must_use]
    pub fn all() -> Self {
        Self::filtered(|_| true)
    }

    /// Probes the points for which `accepts` holds.
    #[must_use]
    pub fn filtered(accepts: impl Fn(HookPoint) -> bool + Send + Sync + 'static) -> Self {
        Self { accepts: Box::new(accepts), leaves: BTreeMap::new() }
    }

    /// Runs the backward pass of `loss` (`[1]`) and returns its gradient at every probed point. The
    /// gradient is zero at points that the loss does not depend on.
    #[must_use]
    pub fn gradients(self, loss: &Tensor<B, 1>) -> ActivationCache<B::InnerBackend> {
        let mut gradients = loss.backward();
        let taken = self.leaves.into_iter().map(|(point, leaf)| (point, leaf.take_gradient(&mut gradients)));
        ActivationCache::from_stored(taken.collect())
    }
}

impl<B: AutodiffBackend> Hook<B> for GradientProbes<B> {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        if !(self.accepts)(point) {
            return activation;
        }
        let leaf = zeros_like(activation.dims(), &activation).require_grad();
        self.leaves.insert(point, AnyRank::from(leaf.clone()));
        activation + leaf
    }

    fn sees(&self, point: HookPoint) -> bool {
        (self.accepts)(point)
    }
}

impl<B: AutodiffBackend> fmt::Debug for GradientProbes<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GradientProbes").field("probed", &self.leaves.keys()).finish_non_exhaustive()
    }
}
