//! The hook that records activations.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::{Tensor, backend::Backend};

use crate::any_rank::AnyRank;
use crate::cache::ActivationCache;
use crate::hook::Hook;
use crate::point::HookPoint;

/// Whether a hook acts at a point.
pub(crate) type Filter = Box<dyn Fn(HookPoint) -> bool + Send + Sync>;

/// Records the activations at the points that it accepts, and changes none.
pub struct Recorder<B: Backend> {
    accepts: Filter,
    stored: BTreeMap<HookPoint, AnyRank<B>>,
}

impl<B: Backend> Recorder<B> {
    /// Records every point.
    #[must_use]
    pub fn all() -> Self {
        Self::filtered(|_| true)
    }

    /// Records the points for which `accepts` holds.
    #[must_use]
    pub fn filtered(accepts: impl Fn(HookPoint) -> bool + Send + Sync + 'static) -> Self {
        Self { accepts: Box::new(accepts), stored: BTreeMap::new() }
    }

    /// Returns the recorded activations.
    #[must_use]
    pub fn into_cache(self) -> ActivationCache<B> {
        ActivationCache::from_stored(self.stored)
    }
}

impl<B: Backend> Hook<B> for Recorder<B> {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        if (self.accepts)(point) {
            self.stored.insert(point, AnyRank::from(activation.clone()));
        }
        activation
    }

    fn sees(&self, point: HookPoint) -> bool {
        (self.accepts)(point)
    }
}

impl<B: Backend> fmt::Debug for Recorder<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("recorded", &self.stored.keys()).finish_non_exhaustive()
    }
}
