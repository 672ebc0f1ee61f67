//! Sums on the device that are read together, in one transfer.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, IxDyn};
use rewire_hooks::Axis;

use crate::run::transfer::to_vecs;

/// A sum on the device, and the order of its axes on the host.
#[derive(Clone)]
pub(crate) struct PendingSum<B: Backend> {
    values: Tensor<B, 1>,
    shape: Vec<usize>,
    order: Vec<usize>,
}

impl<B: Backend> PendingSum<B> {
    /// Sums `tensor` over all axes except the batch and the `kept` axes. The result has the axes in
    /// the order of `kept`: `[batch, kept..]`.
    pub(crate) fn new<const D: usize>(tensor: Tensor<B, D>, axes: &[Axis], kept: &[Axis]) -> Self {
        let summed = (1..D).filter(|&dim| !kept.contains(&axes[dim])).fold(tensor, |t, dim| t.sum_dim(dim));
        let dims = summed.dims();
        let left: Vec<usize> = (1..D).filter(|&dim| kept.contains(&axes[dim])).collect();
        let shape: Vec<usize> = [dims[0]].into_iter().chain(left.iter().map(|&dim| dims[dim])).collect();
        let place = |axis: &Axis| 1 + left.iter().position(|&dim| axes[dim] == *axis).expect("an axis of the site");
        let order = [0].into_iter().chain(kept.iter().map(place)).collect();
        Self { values: summed.reshape([shape.iter().product::<usize>()]), shape, order }
    }

    /// Returns the absolute value of each sum, times `factor`.
    pub(crate) fn sizes(self, factor: f64) -> Self {
        Self { values: self.values.abs() * factor, ..self }
    }

    /// Adds sums of the same nodes.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { values: self.values + other.values, ..self }
    }

    /// Reads sums and other tensors in one transfer.
    pub(crate) fn read(
        sums: Vec<Self>,
        others: impl IntoIterator<Item = Tensor<B, 1>>,
    ) -> (Vec<ArrayD<f32>>, Vec<Vec<f32>>) {
        let (values, layouts): (Vec<_>, Vec<_>) =
            sums.into_iter().map(|sum| (sum.values, (sum.shape, sum.order))).unzip();
        let mut numbers = to_vecs(values.into_iter().chain(others).collect()).into_iter();
        let array = |((shape, order), numbers): ((Vec<usize>, Vec<usize>), Vec<f32>)| {
            let values = ArrayD::from_shape_vec(IxDyn(&shape), numbers).expect("summed axes are of size 1");
            values.permuted_axes(IxDyn(&order))
        };
        let arrays = layouts.into_iter().zip(numbers.by_ref()).map(array).collect();
        (arrays, numbers.collect())
    }
}
