//! Values with the backward pass of another function.

use burn::tensor::{Tensor, backend::Backend};

/// Returns `value` with the backward pass of `other`, which has the same shape. Every bit of
/// `value` is kept if `other` is finite.
pub(crate) fn with_backward_of<B: Backend, const D: usize>(value: Tensor<B, D>, other: Tensor<B, D>) -> Tensor<B, D> {
    // Subtracting 0 keeps every number. Adding 0 would turn -0 into 0.
    value.detach() - (other.clone().detach() - other)
}

/// Returns `x`. The gradient that it passes back is multiplied by `factor`.
pub(crate) fn times_backward<B: Backend, const D: usize>(x: Tensor<B, D>, factor: f64) -> Tensor<B, D> {
    with_backward_of(x.clone(), x * factor)
}
