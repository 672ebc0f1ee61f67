//! The trait of backends that compute gradients, with a compiler hint for other backends.

use burn::tensor::backend::AutodiffBackend;

/// A backend that can run a backward pass: burn's `Autodiff<B>` over any backend `B`.
///
/// Every [`AutodiffBackend`] implements it. This separate trait lets the compiler give a hint if a
/// model is on another backend: use [`Transformer::autodiff`](crate::Transformer::autodiff).
#[diagnostic::on_unimplemented(
    message = "gradients cannot be taken on the backend `{Self}`",
    label = "this analysis needs a model on `Autodiff<{Self}>`",
    note = "`model.autodiff()` returns the model on `Autodiff<{Self}>` without copying weights; `rewire::Study` calls it for you"
)]
pub trait Differentiable: AutodiffBackend {}

#[diagnostic::do_not_recommend]
impl<B: AutodiffBackend> Differentiable for B {}
