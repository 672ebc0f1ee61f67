//! The cache: the activations of a run, by hook point.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, backend::Backend};

use crate::any_rank::AnyRank;
use crate::point::{HookPoint, Site};

/// Activations (or gradients) of one forward pass, by hook point.
///
/// Tensors are shared with the run that made them, not copied. A cache of all activations costs,
/// per token and layer, `4 * (7 d_model + 4 n_heads d_head + 2 d_mlp + 2 n_heads n_pos + 2)` bytes
/// in float32. Parallel blocks cost one `d_model` less, rotary models two `n_heads d_head` more,
/// gated MLPs one `d_mlp` more, and norms after attention and MLP four `d_model` more. With
/// grouped-query attention, keys and values cost less. The points outside the layers cost about `12
/// d_model` bytes per token. To record only some points, use
/// [`Recorder::filtered`](crate::Recorder::filtered).
#[derive(Debug, Clone)]
pub struct ActivationCache<B: Backend> {
    stored: BTreeMap<HookPoint, AnyRank<B>>,
}

/// Why an [`ActivationCache`] cannot return an activation, or a value that depends on one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The point was not recorded.
    #[error(
        "`{point}` is not in the cache, which holds {available} other points; check that it was recorded and that this model has it"
    )]
    Missing {
        /// The requested point.
        point: HookPoint,
        /// The number of points in the cache.
        available: usize,
    },
    /// The activation has another number of dimensions than the caller asked for.
    #[error("`{point}` has {found} dimensions {axes:?}, not {asked}", axes = point.axes())]
    Rank {
        /// The requested point.
        point: HookPoint,
        /// The number of dimensions that the caller asked for.
        asked: usize,
        /// The number of dimensions of the activation.
        found: usize,
    },
    /// Two sizes that must be equal differ.
    #[error("{what}: expected {expected}, found {found}")]
    Size {
        /// The size that differs.
        what: &'static str,
        /// The size that the cache implies.
        expected: usize,
        /// The size that the caller gave.
        found: usize,
    },
}

impl<B: Backend> Default for ActivationCache<B> {
    fn default() -> Self {
        Self { stored: BTreeMap::new() }
    }
}

impl<B: Backend> ActivationCache<B> {
    /// Returns an empty cache. Fill it with [`with`](Self::with) to hold activations that come from
    /// no run.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `activation`, a tensor or an [`AnyRank`], at `point`. It replaces an earlier activation
    /// there.
    #[must_use]
    pub fn with(mut self, point: HookPoint, activation: impl Into<AnyRank<B>>) -> Self {
        self.stored.insert(point, activation.into());
        self
    }

    /// Adds all activations of another cache. They replace earlier activations at the same points.
    pub fn merge(&mut self, other: Self) {
        self.stored.extend(other.stored);
    }

    pub(crate) fn from_stored(stored: BTreeMap<HookPoint, AnyRank<B>>) -> Self {
        Self { stored }
    }

    /// Returns the activation at `point`, with the `D` dimensions that [`HookPoint::axes`] lists.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if it was not recorded, and [`CacheError::Rank`] if it does not have
    /// `D` dimensions.
    pub fn get<const D: usize>(&self, point: HookPoint) -> Result<Tensor<B, D>, CacheError> {
        let stored = self.any(point)?;
        stored.get().ok_or_else(|| CacheError::Rank { point, asked: D, found: stored.rank() })
    }

    /// Returns the activation at `point`, with any number of dimensions.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if it was not recorded.
    pub fn any(&self, point: HookPoint) -> Result<&AnyRank<B>, CacheError> {
        self.stored.get(&point).ok_or(CacheError::Missing { point, available: self.len() })
    }

    /// Returns the activation at a site of block `layer`; see [`get`](Self::get).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn block<const D: usize>(&self, layer: usize, site: Site) -> Result<Tensor<B, D>, CacheError> {
        self.get(HookPoint::block(layer, site))
    }

    /// Returns the points in the cache, in forward order.
    pub fn points(&self) -> impl Iterator<Item = HookPoint> + '_ {
        self.stored.keys().copied()
    }

    /// Returns the sizes of the activation at `point`, or `None` if the cache does not hold it.
    #[must_use]
    pub fn dims(&self, point: HookPoint) -> Option<Vec<usize>> {
        self.stored.get(&point).map(AnyRank::dims)
    }

    /// Returns the number of activations in the cache.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// Returns whether the cache is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Returns the number of bytes that the activations occupy in float32.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.stored.values().map(|s| s.dims().iter().product::<usize>() * size_of::<f32>()).sum()
    }
}
