//! The affine map of a layer whose matrix is in memory or in the model's file.

use std::ops::Range;

use burn::tensor::{Tensor, backend::Backend};
use rewire_tensor::matmul;

use crate::network::matrix::Matrix;
#[cfg(feature = "flex")]
use crate::network::product::products;

/// Returns `x @ w + b` over the last axis. `x` is `[batch, pos, from]`, `w` is `[from, to]`, and
/// `b` is `[to]`.
pub(crate) fn project<B: Backend>(x: Tensor<B, 3>, w: &Matrix<B>, b: Tensor<B, 1>) -> Tensor<B, 3> {
    #[expect(clippy::single_range_in_vec_init, reason = "one part of the columns, not its numbers")]
    let [out] = project_parts(x, w, [0..w.dims()[1]], b);
    out
}

/// Returns what [`project`] returns for each of these neighboring columns of `w`, whose biases are
/// `b`.
pub(crate) fn project_parts<B: Backend, const N: usize>(
    x: Tensor<B, 3>,
    w: &Matrix<B>,
    parts: [Range<usize>; N],
    b: Tensor<B, 1>,
) -> [Tensor<B, 3>; N] {
    let [batch, pos, from] = x.dims();
    let shaped = |rows: Tensor<B, 2>| {
        let to = rows.dims()[1];
        rows.reshape([batch, pos, to])
    };
    // One matmul over all rows: a batch of small matmuls is several times slower.
    let x = x.reshape([batch * pos, from]);
    #[cfg(feature = "flex")]
    if let Some(products) = products(&x, w, &parts, &b) {
        return products.map(shaped);
    }
    let all = parts[0].start..parts[N - 1].end;
    let to = all.len();
    let rows = matmul(x, w.columns(all.clone())) + b.reshape([1, to]);
    parts.map(|columns| match columns.len() == to {
        true => shaped(rows.clone()),
        false => shaped(rows.clone().narrow(1, columns.start - all.start, columns.len())),
    })
}
