//! Transfers of tensors to the host, and gathers of rows.

use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::Transaction;
use burn::tensor::backend::Backend;
/// Returns the values of a tensor on the host, in row-major order.
pub(crate) fn to_vec<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Returns the values of several tensors on the host. One transfer waits for the device once.
pub(crate) fn to_vecs<B: Backend>(tensors: Vec<Tensor<B, 1>>) -> Vec<Vec<f32>> {
    let all = tensors.into_iter().fold(Transaction::<B>::default(), Transaction::register);
    all.execute().into_iter().map(|data| data.iter::<f32>().collect()).collect()
}

/// Flattens `[prompts, pos, width]` to one row per prompt and position, `[prompts * pos, width]`.
pub(crate) fn flatten_positions<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [prompts, pos, width] = x.dims();
    x.reshape([prompts * pos, width])
}

/// Gathers rows of `table` `[row, width]`.
pub(crate) fn select_rows<B: Backend>(table: Tensor<B, 2>, rows: &[usize]) -> Tensor<B, 2> {
    let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [rows.len()]), &table.device());
    table.select(0, index)
}
