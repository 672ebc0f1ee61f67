//! Untracked parameters, and the affine map that every layer uses.

use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, backend::Backend};
use rewire_tensor::matmul;

/// Returns a parameter that is off the autodiff tape: analyses differentiate with respect to
/// activations, never weights.
pub(crate) fn frozen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::initialized(ParamId::new(), tensor)
}

/// Returns `x @ w + b` over the last axis. `x` is `[batch, pos, from]`, `w` is `[from, to]`, and
/// `b` is `[to]`.
pub(crate) fn linear<B: Backend>(x: Tensor<B, 3>, w: Tensor<B, 2>, b: Tensor<B, 1>) -> Tensor<B, 3> {
    let [batch, pos, from] = x.dims();
    let [_, to] = w.dims();
    // One matmul over all rows: a batch of small matmuls is several times slower.
    let rows = matmul(x.reshape([batch * pos, from]), w) + b.reshape([1, to]);
    rows.reshape([batch, pos, to])
}
