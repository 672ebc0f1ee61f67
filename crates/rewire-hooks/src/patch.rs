//! The hook that replaces activations.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, backend::Backend};
use rewire_tensor::cast_like;

use crate::any_rank::{AnyMask, AnyRank};
use crate::cache::{ActivationCache, CacheError};
use crate::head::HeadPoint;
use crate::hook::Hook;
use crate::point::{Axis, HookPoint};

/// Replaces the activations at some points, whole or at the elements where a mask is true.
///
/// A hook cannot return an error. A replacement that does not fit is not applied, and neither is
/// one whose point the run never reached. [`Patch::finish`] reports both: a patch that silently did
/// nothing would look like a node without effect.
#[derive(Debug, Clone)]
pub struct Patch<B: Backend> {
    replacements: BTreeMap<HookPoint, Replacement<B>>,
    mismatch: Option<PatchError>,
}

#[derive(Debug, Clone)]
struct Replacement<B: Backend> {
    value: AnyRank<B>,
    mask: Option<AnyMask<B>>,
    applied: bool,
}

/// Why a replacement or an edit was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The run did not reach the point.
    #[error("the run never reached `{point}`, and its patch was not applied")]
    NotReached {
        /// The point to patch.
        point: HookPoint,
    },
    /// The value or mask has another shape than the activation.
    #[error("the patch for `{point}` has shape {found:?}, and the activation has shape {expected:?}")]
    ShapeMismatch {
        /// The point to patch.
        point: HookPoint,
        /// The shape of the activation.
        expected: Vec<usize>,
        /// The shape of the replacement or of its mask.
        found: Vec<usize>,
    },
    /// The closure of an edit takes another number of dimensions than the point has.
    #[error(
        "the edit at `{point}` takes {taken} dimensions, and the activation has {} {:?}",
        point.rank(),
        point.axes()
    )]
    Rank {
        /// The point to edit.
        point: HookPoint,
        /// The number of dimensions that the closure takes.
        taken: usize,
    },
    /// The cached activation lacks a head or a position.
    #[error("{node} is not in the cache: it holds {n_heads} heads and {n_positions} positions of `{}`", node.point())]
    NoSuchNode {
        /// The requested activation.
        node: HeadPoint,
        /// The number of heads in the cached activation.
        n_heads: usize,
        /// The number of positions in the cached activation.
        n_positions: usize,
    },
    /// The cache lacks an activation that the patch needs.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl<B: Backend> Default for Patch<B> {
    fn default() -> Self {
        Self { replacements: BTreeMap::new(), mismatch: None }
    }
}

impl<B: Backend> Patch<B> {
    /// Returns a patch without replacements.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a patch that replaces the activations of some heads by those in `cache`, such as
    /// another run's, and nothing else.
    ///
    /// The run must have the shape of the cached run: the same number of prompts, of the same
    /// length.
    ///
    /// ```
    /// use burn::backend::Flex;
    /// use burn::tensor::Tensor;
    /// use rewire_hooks::{ActivationCache, Head, Hook, Patch, Site};
    ///
    /// // [batch, pos, head, d_head]
    /// let z = Tensor::<Flex, 4>::ones([1, 5, 4, 8], &Default::default());
    /// let cache = ActivationCache::new().with(Site::Z.at(0), z.clone());
    ///
    /// let nodes = [Head::new(0, 2).z(), Head::new(0, 3).z().at(4)];
    /// let mut patch = Patch::nodes(&nodes, &cache).unwrap();
    /// let patched = patch.visit(Site::Z.at(0), z.zeros_like()); // a model would call this
    /// // Head 2 everywhere, head 3 at position 4.
    /// assert_eq!(patched.sum().into_scalar(), 5.0 * 8.0 + 8.0);
    /// patch.finish().unwrap();
    /// ```
    ///
    /// # Errors
    /// [`PatchError::Cache`] if an activation was not recorded, and [`PatchError::NoSuchNode`] if
    /// it has no such head or position.
    pub fn nodes(nodes: &[HeadPoint], cache: &ActivationCache<B>) -> Result<Self, PatchError> {
        let mut by_point: BTreeMap<HookPoint, Vec<HeadPoint>> = BTreeMap::new();
        for &node in nodes {
            by_point.entry(node.point()).or_default().push(node);
        }
        by_point.into_iter().try_fold(Self::new(), |patch, (point, nodes)| {
            let value = cache.any(point)?.clone();
            let dims = value.dims();
            let axis = |is: fn(&Axis) -> bool| point.axes().iter().position(is);
            let (head, position) = (axis(|a| *a == Axis::Head), axis(|a| matches!(a, Axis::Pos | Axis::Query)));
            let size = |axis: Option<usize>| axis.and_then(|axis| dims.get(axis)).copied().unwrap_or(0);
            let (n_heads, n_positions) = (size(head), size(position));
            let is_outside =
                |node: &&HeadPoint| node.head().head >= n_heads || node.position().is_some_and(|p| p >= n_positions);
            if let Some(&node) = nodes.iter().find(is_outside) {
                return Err(PatchError::NoSuchNode { node, n_heads, n_positions });
            }
            let at = |axis: Option<usize>, index: &[usize]| axis.map_or(0, |axis| index[axis]);
            let mask = AnyMask::of(&dims, &value.device(), |index| {
                let (head, position) = (at(head, index), at(position, index));
                nodes.iter().any(|node| node.head().head == head && node.position().is_none_or(|p| p == position))
            });
            Ok(patch.replace_where(point, value, mask))
        })
    }

    /// Replaces the whole activation at `point` by `value`, a tensor or an [`AnyRank`]. The value
    /// is cast to the activation's element type.
    #[must_use]
    pub fn replace(self, point: HookPoint, value: impl Into<AnyRank<B>>) -> Self {
        self.insert(point, value.into(), None)
    }

    /// Replaces the elements of the activation at `point` at which `mask` is true by those of
    /// `value`. All three have one shape.
    #[must_use]
    pub fn replace_where(self, point: HookPoint, value: impl Into<AnyRank<B>>, mask: impl Into<AnyMask<B>>) -> Self {
        self.insert(point, value.into(), Some(mask.into()))
    }

    fn insert(mut self, point: HookPoint, value: AnyRank<B>, mask: Option<AnyMask<B>>) -> Self {
        self.replacements.insert(point, Replacement { value, mask, applied: false });
        self
    }

    /// Checks, after the run, that every replacement was applied.
    ///
    /// # Errors
    /// [`PatchError::ShapeMismatch`] if a replacement did not fit, and [`PatchError::NotReached`]
    /// if the run did not reach its point.
    pub fn finish(self) -> Result<(), PatchError> {
        if let Some(mismatch) = self.mismatch {
            return Err(mismatch);
        }
        match self.replacements.into_iter().find(|(_, r)| !r.applied) {
            Some((point, _)) => Err(PatchError::NotReached { point }),
            None => Ok(()),
        }
    }
}

impl<B: Backend> Hook<B> for Patch<B> {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        let Some(replacement) = self.replacements.get_mut(&point) else {
            return activation;
        };
        replacement.applied = true;
        let expected = activation.dims().to_vec();
        let mask_dims = replacement.mask.as_ref().map(AnyMask::dims);
        let found = [Some(replacement.value.dims()), mask_dims].into_iter().flatten().find(|d| *d != expected);
        if let Some(found) = found {
            self.mismatch.get_or_insert(PatchError::ShapeMismatch { point, expected, found });
            return activation;
        }
        match (replacement.value.get(), replacement.mask.as_ref().map(AnyMask::get)) {
            (Some(value), None) => cast_like(value, &activation),
            (Some(value), Some(Some(mask))) => {
                let value = cast_like(value, &activation);
                activation.mask_where(mask, value)
            }
            _ => activation,
        }
    }

    fn sees(&self, point: HookPoint) -> bool {
        self.replacements.contains_key(&point)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;
    use crate::head::Head;
    use crate::point::Site;

    /// A cache that holds the numbers 1, 2, .. at a point.
    fn cache(point: HookPoint, dims: [usize; 4]) -> ActivationCache<Flex> {
        let numbers: Vec<f32> = (1..=dims.iter().product()).map(|i| i as f32).collect();
        ActivationCache::new().with(point, AnyRank::from_data(TensorData::new(numbers, dims), &Default::default()))
    }

    fn patched(nodes: &[HeadPoint], point: HookPoint, dims: [usize; 4]) -> Vec<f32> {
        let mut patch = Patch::nodes(nodes, &cache(point, dims)).unwrap();
        let found = patch.visit(point, Tensor::<Flex, 4>::zeros(dims, &Default::default()));
        patch.finish().unwrap();
        found.into_data().to_vec().unwrap()
    }

    #[test]
    fn patching_nodes_replaces_only_their_heads_and_positions() {
        let head = Head::new(1, 1);
        // [batch, pos, head, d_head]
        assert_eq!(patched(&[head.z()], Site::Z.at(1), [1, 2, 2, 2]), [0., 0., 3., 4., 0., 0., 7., 8.]);
        assert_eq!(patched(&[head.v().at(1)], Site::V.at(1), [1, 2, 2, 2]), [0., 0., 0., 0., 0., 0., 7., 8.]);
        let both = [head.q().at(0), Head::new(1, 0).q().at(1)];
        assert_eq!(patched(&both, Site::Q.at(1), [1, 2, 2, 2]), [0., 0., 3., 4., 5., 6., 0., 0.]);
        // [batch, head, query, key]
        assert_eq!(patched(&[head.pattern()], Site::Pattern.at(1), [1, 2, 2, 2]), [0., 0., 0., 0., 5., 6., 7., 8.]);
        assert_eq!(patched(&[head.pattern().at(0)], Site::Pattern.at(1), [1, 2, 2, 2])[4..], [5., 6., 0., 0.]);
    }

    #[test]
    fn nodes_missing_from_the_cache_are_refused() {
        let cache = cache(Site::Z.at(1), [1, 2, 3, 2]);
        let refused = |node: HeadPoint| Patch::nodes(&[node], &cache).unwrap_err();
        let missing = CacheError::Missing { point: Site::Z.at(0), available: 1 };
        assert_eq!(refused(Head::new(0, 1).z()), PatchError::Cache(missing));
        for node in [Head::new(1, 3).z(), Head::new(1, 2).z().at(2)] {
            assert_eq!(refused(node), PatchError::NoSuchNode { node, n_heads: 3, n_positions: 2 });
        }
        let said = refused(Head::new(1, 2).z().at(2)).to_string();
        assert_eq!(
            said,
            "head_z:L1H2@2 is not in the cache: it holds 3 heads and 2 positions of `blocks.1.attn.hook_z`"
        );
        assert_eq!(Patch::nodes(&[], &cache).unwrap().finish(), Ok(()));
    }
}
