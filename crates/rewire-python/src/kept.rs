//! The hook that keeps activations for numpy.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use rewire_hooks::{AnyRank, Hook, HookPoint};

use crate::arrays::values;
use crate::failure::Failure;

/// Activations or gradients by TransformerLens' names, in forward order.
pub(crate) type Named = Vec<(String, ArrayD<f32>)>;

/// Keeps activations, as a recorder does. Unlike a cache, it gives up each one, so that an
/// activation that the run does not share is moved into its array and not copied.
pub(crate) struct Kept<B: Backend> {
    /// The points to keep; `None` for all.
    wanted: Option<Vec<HookPoint>>,
    stored: BTreeMap<HookPoint, AnyRank<B>>,
}

impl<B: Backend> Kept<B> {
    /// Keeps the activations at these points, or at all points.
    pub(crate) fn new(wanted: Option<Vec<HookPoint>>) -> Self {
        Self { wanted, stored: BTreeMap::new() }
    }

    /// Returns the activations.
    pub(crate) fn into_named(self) -> Result<Named, Failure> {
        self.stored.into_iter().map(|(point, activation)| Ok((point.to_string(), values(activation)?))).collect()
    }
}

impl<B: Backend> Hook<B> for Kept<B> {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        if self.sees(point) {
            self.stored.insert(point, AnyRank::from(activation.clone()));
        }
        activation
    }

    fn sees(&self, point: HookPoint) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&point))
    }
}
