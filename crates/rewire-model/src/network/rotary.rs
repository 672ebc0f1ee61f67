//! Rotary position embedding, with half-split pairs as in GPT-NeoX.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rewire_tensor::{cast_like, to_f32};

/// The rotation angles of a run's positions.
#[derive(Debug, Clone)]
pub(crate) struct Rotary<B: Backend> {
    /// Cosines, `[1, pos, 1, dims]`; `[batch, pos, 1, dims]` if each row has its own positions.
    cos: Tensor<B, 4>,
    /// Sines, with the shape of `cos`.
    sin: Tensor<B, 4>,
    dims: usize,
}

impl<B: Backend> Rotary<B> {
    /// Returns the angles of positions that all rows share.
    pub(crate) fn shared(dims: usize, base: f64, positions: std::ops::Range<usize>, device: &B::Device) -> Self {
        let shape = [1, positions.len(), 1, dims];
        Self::new(dims, base, positions, shape, device)
    }

    /// Returns the angles of `per_row` positions of each row, row by row.
    pub(crate) fn each(dims: usize, base: f64, positions: &[usize], per_row: usize, device: &B::Device) -> Self {
        let shape = [positions.len() / per_row, per_row, 1, dims];
        Self::new(dims, base, positions.iter().copied(), shape, device)
    }

    /// Returns the angles: pair `(i, i + dims / 2)` turns by `position / base^(2 i / dims)`.
    fn new(
        dims: usize,
        base: f64,
        positions: impl Iterator<Item = usize>,
        shape: [usize; 4],
        device: &B::Device,
    ) -> Self {
        let angles = positions.flat_map(|position| {
            (0..dims).map(move |i| {
                let pair = i % (dims / 2);
                position as f64 / base.powf(2.0 * pair as f64 / dims as f64)
            })
        });
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        let tensor = |data| Tensor::from_data(TensorData::new(data, shape), device);
        Self { cos: tensor(cos), sin: tensor(sin), dims }
    }

    /// Rotates the first `dims` dimensions of each head; `x` is `[batch, pos, head, d_head]`.
    pub(crate) fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, _, d_head] = x.dims();
        if self.dims == 0 {
            return x;
        }
        let (as_given, x) = (x.clone(), to_f32(x));
        let half = self.dims / 2;
        let turned = x.clone().narrow(3, 0, self.dims);
        let (low, high) = (turned.clone().narrow(3, 0, half), turned.clone().narrow(3, half, half));
        let quarter_turn = Tensor::cat(vec![high.neg(), low], 3);
        let rotated = turned * self.cos.clone() + quarter_turn * self.sin.clone();
        if self.dims == d_head {
            return cast_like(rotated, &as_given);
        }
        cast_like(Tensor::cat(vec![rotated, x.narrow(3, self.dims, d_head - self.dims)], 3), &as_given)
    }
}
