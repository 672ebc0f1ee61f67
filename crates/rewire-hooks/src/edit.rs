//! The hook that edits one activation with a closure of fixed rank.

use std::fmt;
use std::marker::PhantomData;

use burn::tensor::{Tensor, backend::Backend};
use rewire_tensor::cast_like;

use crate::any_rank::AnyRank;
use crate::hook::Hook;
use crate::patch::PatchError;
use crate::point::HookPoint;

/// Edits the activation at one point with a closure; made by [`edit`].
pub struct Edit<B, const D: usize, F> {
    point: HookPoint,
    change: F,
    was_reached: bool,
    mismatch: Option<PatchError>,
    backend: PhantomData<fn() -> B>,
}

/// Makes a hook that replaces the activation at `point` by the result of `change`.
///
/// `D` is the number of dimensions that [`HookPoint::axes`] lists for the point. The compiler
/// infers it if the closure's argument is annotated. The closure must keep the shape. A hook cannot
/// return an error: an edit that does not fit leaves the activation unchanged, and [`Edit::finish`]
/// reports it.
///
/// ```
/// use burn::backend::Flex;
/// use burn::tensor::{Tensor, s};
/// use rewire_hooks::{Hook, Site, edit};
///
/// // Sets head 1 of block 0 to zero.
/// let mut ablation =
///     edit(Site::Z.at(0), |z: Tensor<Flex, 4>| z.slice_fill(s![.., .., 1, ..], 0.0));
///
/// // A model calls its hook at every point; here we call the hook ourselves.
/// // [batch, pos, head, d_head]
/// let z = Tensor::<Flex, 4>::ones([2, 5, 4, 8], &Default::default());
/// let changed = ablation.visit(Site::Z.at(0), z);
/// assert_eq!(changed.sum().into_scalar(), 2.0 * 5.0 * 3.0 * 8.0);
/// ablation.finish().unwrap();
/// ```
pub fn edit<B: Backend, const D: usize, F>(point: HookPoint, change: F) -> Edit<B, D, F>
where
    F: FnMut(Tensor<B, D>) -> Tensor<B, D>,
{
    let mismatch = (point.rank() != D).then_some(PatchError::Rank { point, taken: D });
    Edit { point, change, was_reached: false, mismatch, backend: PhantomData }
}

impl<B, const D: usize, F> Edit<B, D, F> {
    /// Checks, after the run, that the edit was applied.
    ///
    /// # Errors
    /// [`PatchError::Rank`] if the closure takes another number of dimensions than the point has,
    /// [`PatchError::ShapeMismatch`] if it returned another shape, and [`PatchError::NotReached`]
    /// if the run did not reach the point.
    pub fn finish(self) -> Result<(), PatchError> {
        match self.mismatch {
            Some(mismatch) => Err(mismatch),
            None if !self.was_reached => Err(PatchError::NotReached { point: self.point }),
            None => Ok(()),
        }
    }
}

impl<B: Backend, const D: usize, F: FnMut(Tensor<B, D>) -> Tensor<B, D>> Hook<B> for Edit<B, D, F> {
    fn visit<const N: usize>(&mut self, point: HookPoint, activation: Tensor<B, N>) -> Tensor<B, N> {
        if point != self.point {
            return activation;
        }
        self.was_reached = true;
        let Some(fixed) = AnyRank::from(activation.clone()).get::<D>() else { return activation };
        let changed = AnyRank::from((self.change)(fixed));
        match changed.get::<N>() {
            Some(changed) if changed.dims() == activation.dims() => cast_like(changed, &activation),
            _ => {
                let (expected, found) = (activation.dims().to_vec(), changed.dims());
                self.mismatch.get_or_insert(PatchError::ShapeMismatch { point, expected, found });
                activation
            }
        }
    }

    fn sees(&self, point: HookPoint) -> bool {
        point == self.point
    }
}

impl<B, const D: usize, F> fmt::Debug for Edit<B, D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit").field("point", &self.point).field("rank", &D).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::point::Site;

    const POINT: HookPoint = HookPoint::Block { layer: 1, site: Site::Z };

    fn ones<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
        Tensor::ones(shape, &Default::default())
    }

    fn sum<const D: usize>(x: Tensor<Flex, D>) -> f32 {
        x.sum().into_scalar()
    }

    #[test]
    fn an_edit_changes_only_its_hook_point() {
        let mut double = edit(POINT, |z: Tensor<Flex, 4>| z * 2.0);
        assert_eq!(sum(double.visit(HookPoint::Embed, ones([1, 2, 3]))), 6.0);
        assert_eq!(sum(double.visit(POINT, ones([1, 2, 3, 4]))), 48.0);
        assert_eq!(double.finish(), Ok(()));
    }

    #[test]
    fn edits_compose_as_tuples() {
        let double = edit(POINT, |z: Tensor<Flex, 4>| z * 2.0);
        let add = edit(POINT, |z: Tensor<Flex, 4>| z + 1.0);
        let mut both = (double, add);
        assert_eq!(sum(both.visit(POINT, ones([1, 1, 1, 1]))), 3.0);
    }

    #[test]
    fn an_edit_of_another_rank_is_an_error_and_changes_nothing() {
        let mut flat = edit(POINT, |z: Tensor<Flex, 3>| z * 2.0);
        assert_eq!(sum(flat.visit(POINT, ones([1, 2, 3, 4]))), 24.0);
        let error = flat.finish().unwrap_err();
        assert_eq!(error, PatchError::Rank { point: POINT, taken: 3 });
        let said = error.to_string();
        assert!(said.contains("takes 3 dimensions") && said.contains("4 [Batch, Pos, Head, DHead]"), "{said}");
    }

    #[test]
    fn an_edit_that_changes_the_shape_is_an_error_and_changes_nothing() {
        let mut shorter = edit(POINT, |z: Tensor<Flex, 4>| z.narrow(1, 0, 1));
        assert_eq!(sum(shorter.visit(POINT, ones([1, 2, 3, 4]))), 24.0);
        let (expected, found) = (vec![1, 2, 3, 4], vec![1, 1, 3, 4]);
        assert_eq!(shorter.finish(), Err(PatchError::ShapeMismatch { point: POINT, expected, found }));
    }

    #[test]
    fn an_edit_at_an_unreached_hook_point_is_an_error() {
        let mut never = edit(POINT, |z: Tensor<Flex, 4>| z * 2.0);
        never.visit(HookPoint::Embed, ones([1, 2, 3]));
        assert_eq!(never.finish(), Err(PatchError::NotReached { point: POINT }));
    }
}
