//! Untracked parameters, and the affine map that every layer is made of.

use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, backend::Backend};
use rewire_tensor::matmul;

/// A parameter off the autodiff tape: analyzes differentiate with respect to activations, never weights.
pub(crate) fn frozen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::initialized(ParamId::new(), tensor)
}

/// `x @ w + b` over the last axis; `x` is `[batch, pos, from]`, `w` `[from, to]`, `b` `[to]`.
pub(crate) fn linear<B: Backend>(x: Tensor<B, 3>, w: Tensor<B, 2>, b: Tensor<B, 1>) -> Tensor<B, 3> {
    let [batch, pos, from] = x.dims();
    let [_, to] = w.dims();
    // One product over all rows: a batch of small ones is several times slower.
    let rows = matmul(x.reshape([batch * pos, from]), w) + b.reshape([1, to]);
    rows.reshape([batch, pos, to])
}
