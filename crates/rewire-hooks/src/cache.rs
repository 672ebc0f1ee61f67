//! The activations of a run, by hook point.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, backend::Backend};

use crate::any_rank::AnyRank;
use crate::point::{HookPoint, Site};

/// Activations (or gradients) of one forward pass, by hook point.
///
/// Tensors are shared with the run that made them, not copied; a cache of everything costs, per token and layer,
/// `4 * (7 d_model + 4 n_heads d_head + 2 d_mlp + 2 n_heads n_pos + 2)` bytes in float32 (one `d_model` less in parallel
/// blocks, two `n_heads d_head` more in rotary models), and some `12 d_model` a token outside the layers. Record only what you need with [`Recorder::filtered`](crate::Recorder::filtered).
#[derive(Debug, Clone)]
pub struct ActivationCache<B: Backend> {
    stored: BTreeMap<HookPoint, AnyRank<B>>,
}

/// What was asked of an [`ActivationCache`] and is not in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The point was not recorded.
    #[error(
        "`{point}` is not in the cache (it holds {available} other points); was it recorded, and does this model have it?"
    )]
    Missing {
        /// The point asked for.
        point: HookPoint,
        /// How many points the cache holds.
        available: usize,
    },
    /// The tensor was asked for with another number of dimensions than it has.
    #[error("`{point}` has {found} dimensions {axes:?}, not {asked}", axes = point.axes())]
    Rank {
        /// The point asked for.
        point: HookPoint,
        /// Dimensions asked for.
        asked: usize,
        /// Dimensions it has.
        found: usize,
    },
    /// Two things that must agree in size do not.
    #[error("{what}: expected {expected}, found {found}")]
    Size {
        /// What disagrees.
        what: &'static str,
        /// The size that the cache implies.
        expected: usize,
        /// The size that was given.
        found: usize,
    },
}

impl<B: Backend> Default for ActivationCache<B> {
    fn default() -> Self {
        Self { stored: BTreeMap::new() }
    }
}

impl<B: Backend> ActivationCache<B> {
    /// An empty cache, to be filled by [`with`](Self::with): activations that no run had.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `activation`, a tensor or an [`AnyRank`], at `point`, in place of an earlier one.
    #[must_use]
    pub fn with(mut self, point: HookPoint, activation: impl Into<AnyRank<B>>) -> Self {
        self.stored.insert(point, activation.into());
        self
    }

    /// Takes in all of another cache, in place of what was there.
    pub fn merge(&mut self, other: Self) {
        self.stored.extend(other.stored);
    }

    pub(crate) fn from_stored(stored: BTreeMap<HookPoint, AnyRank<B>>) -> Self {
        Self { stored }
    }

    /// The activation at `point`, with `D` dimensions as [`HookPoint::axes`] lists them.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if it was not recorded, [`CacheError::Rank`] if `D` is not its number of dimensions.
    pub fn get<const D: usize>(&self, point: HookPoint) -> Result<Tensor<B, D>, CacheError> {
        let stored = self.any(point)?;
        stored.get().ok_or_else(|| CacheError::Rank { point, asked: D, found: stored.rank() })
    }

    /// The activation at `point`, whatever its number of dimensions.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if it was not recorded.
    pub fn any(&self, point: HookPoint) -> Result<&AnyRank<B>, CacheError> {
        self.stored.get(&point).ok_or(CacheError::Missing { point, available: self.len() })
    }

    /// The activation at a site of block `layer`; see [`get`](Self::get).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn block<const D: usize>(&self, layer: usize, site: Site) -> Result<Tensor<B, D>, CacheError> {
        self.get(HookPoint::block(layer, site))
    }

    /// The points held, in forward order.
    pub fn points(&self) -> impl Iterator<Item = HookPoint> + '_ {
        self.stored.keys().copied()
    }

    /// The sizes of the activation at `point`, if it is held.
    #[must_use]
    pub fn dims(&self, point: HookPoint) -> Option<Vec<usize>> {
        self.stored.get(&point).map(AnyRank::dims)
    }

    /// How many activations are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Bytes that the held activations occupy in float32.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.stored.values().map(|s| s.dims().iter().product::<usize>() * size_of::<f32>()).sum()
    }
}
