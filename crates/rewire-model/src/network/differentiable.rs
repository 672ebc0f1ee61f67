//! The backends that gradients can be taken on, with a hint for who has another.

use burn::tensor::backend::AutodiffBackend;

/// A backend that keeps what a backward pass needs: burn's `Autodiff<B>` over any backend `B`.
///
/// Every [`AutodiffBackend`] is one. It is a trait of its own so that the compiler can say what to
/// do where a model is not on such a backend: take
/// [`Transformer::autodiff`](crate::Transformer::autodiff).
#[diagnostic::on_unimplemented(
    message = "gradients cannot be taken on the backend `{Self}`",
    label = "this analysis needs a model on `Autodiff<{Self}>`",
    note = "`model.autodiff()` gives the same model there, without copying weights; `rewire::Study` does that by itself"
)]
pub trait Differentiable: AutodiffBackend {}

#[diagnostic::do_not_recommend]
impl<B: AutodiffBackend> Differentiable for B {}
