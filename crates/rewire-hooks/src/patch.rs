//! The hook that replaces activations.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};
use rewire_tensor::in_type_of;

use crate::stored::{Stored, StoredMask};
use crate::{Hook, HookPoint};

/// Replaces the activation at some points, whole or where a mask is true.
///
/// A hook cannot refuse, so a replacement that does not fit is left out of the run and reported by [`Patch::finish`], as
/// is one whose point the run never reached: a patch that silently did nothing would look like a node without effect.
#[derive(Debug, Clone)]
pub struct Patch<B: Backend> {
    replacements: BTreeMap<HookPoint, Replacement<B>>,
    mismatch: Option<PatchError>,
}

#[derive(Debug, Clone)]
struct Replacement<B: Backend> {
    value: Stored<B>,
    mask: Option<StoredMask<B>>,
    applied: bool,
}

/// A replacement that was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The run did not pass the point.
    #[error("the run never reached `{point}`, so its patch was not applied")]
    NotReached {
        /// The point that was to be patched.
        point: HookPoint,
    },
    /// The value or mask has another shape than the activation.
    #[error("the patch for `{point}` has shape {found:?}, the activation {expected:?}")]
    ShapeMismatch {
        /// The point that was to be patched.
        point: HookPoint,
        /// Shape of the activation.
        expected: Vec<usize>,
        /// Shape of the replacement or of its mask.
        found: Vec<usize>,
    },
}

impl<B: Backend> Default for Patch<B> {
    fn default() -> Self {
        Self { replacements: BTreeMap::new(), mismatch: None }
    }
}

impl<B: Backend> Patch<B> {
    /// A patch that replaces nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the whole activation at `point` by `value`, which is rounded to the activation's numbers if those are shorter.
    #[must_use]
    pub fn replace<const D: usize>(self, point: HookPoint, value: Tensor<B, D>) -> Self {
        self.insert(point, Stored::new(value), None)
    }

    /// Replaces the activation at `point` by `value` where `mask` is true; all three have one shape.
    #[must_use]
    pub fn replace_where<const D: usize>(
        self,
        point: HookPoint,
        value: Tensor<B, D>,
        mask: Tensor<B, D, Bool>,
    ) -> Self {
        self.insert(point, Stored::new(value), Some(StoredMask::new(mask)))
    }

    fn insert(mut self, point: HookPoint, value: Stored<B>, mask: Option<StoredMask<B>>) -> Self {
        self.replacements.insert(point, Replacement { value, mask, applied: false });
        self
    }

    /// Says, after the run, whether every replacement was made.
    ///
    /// # Errors
    /// [`PatchError::ShapeMismatch`] for one that did not fit, [`PatchError::NotReached`] for one whose point the run did
    /// not pass.
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
        let mask_dims = replacement.mask.as_ref().map(StoredMask::dims);
        let found = [Some(replacement.value.dims()), mask_dims].into_iter().flatten().find(|d| *d != expected);
        if let Some(found) = found {
            self.mismatch.get_or_insert(PatchError::ShapeMismatch { point, expected, found });
            return activation;
        }
        match (replacement.value.get(), replacement.mask.as_ref().map(StoredMask::get)) {
            (Some(value), None) => in_type_of(value, &activation),
            (Some(value), Some(Some(mask))) => {
                let value = in_type_of(value, &activation);
                activation.mask_where(mask, value)
            }
            _ => activation,
        }
    }
}
