//! Rotary position embedding, with half-split pairs as in GPT-NeoX and Llama.

use std::f64::consts::TAU;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rewire_tensor::{cast_like, to_f32};

use crate::config::{Positions, RotaryScaling, TransformerConfig};

/// How fast the pairs of dimensions turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turning {
    /// The number of leading dimensions that turn.
    dims: usize,
    base: f64,
    scaling: Option<RotaryScaling>,
}

/// The rotation angles of a run's positions.
#[derive(Debug, Clone)]
pub(crate) struct Rotary<B: Backend> {
    /// Cosines, `[1, pos, 1, dims]`; `[batch, pos, 1, dims]` if each row has its own positions.
    cos: Tensor<B, 4>,
    /// Sines, with the shape of `cos`.
    sin: Tensor<B, 4>,
    dims: usize,
}

impl Turning {
    /// Returns how fast pairs turn in a model, or `None` if the model has no rotary positions.
    pub(crate) fn of(config: &TransformerConfig) -> Option<Self> {
        match config.positions {
            Positions::Rotary { dims, base } => Some(Self { dims, base, scaling: config.rotary_scaling }),
            Positions::Learned => None,
        }
    }

    /// Returns the angle of pair `(i, i + dims / 2)` at a position: `position / base^(2 i / dims)`,
    /// stretched as the model says.
    fn angle(&self, position: usize, pair: usize) -> f64 {
        let slowness = self.base.powf(2.0 * pair as f64 / self.dims as f64);
        let angle = position as f64 / slowness;
        match self.scaling {
            None => angle,
            Some(RotaryScaling::Linear { factor }) => angle / factor,
            Some(RotaryScaling::Llama3 { factor, low_turns, high_turns, context }) => {
                let turns = context as f64 / (TAU * slowness);
                // 0 for pairs that are divided by the factor, 1 for pairs that are kept.
                let kept = ((turns - low_turns) / (high_turns - low_turns)).clamp(0.0, 1.0);
                angle * ((1.0 - kept) / factor + kept)
            }
        }
    }
}

impl<B: Backend> Rotary<B> {
    /// Returns the angles of positions that all rows share.
    pub(crate) fn shared(turning: Turning, positions: std::ops::Range<usize>, device: &B::Device) -> Self {
        let shape = [1, positions.len(), 1, turning.dims];
        Self::new(turning, positions, shape, device)
    }

    /// Returns the angles of `per_row` positions of each row, row by row.
    pub(crate) fn each(turning: Turning, positions: &[usize], per_row: usize, device: &B::Device) -> Self {
        let shape = [positions.len() / per_row, per_row, 1, turning.dims];
        Self::new(turning, positions.iter().copied(), shape, device)
    }

    fn new(turning: Turning, positions: impl Iterator<Item = usize>, shape: [usize; 4], device: &B::Device) -> Self {
        let dims = turning.dims;
        let angles = positions.flat_map(|position| (0..dims).map(move |i| turning.angle(position, i % (dims / 2))));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_fast_pairs_and_divides_slow_ones() {
        // With base e^8 and 8 dimensions, pair `i` turns by 1 / e^(2 i) per position.
        let scaling = RotaryScaling::Llama3 { factor: 8.0, low_turns: 1.0, high_turns: 4.0, context: 64 };
        let scaled = Turning { dims: 8, base: 8.0_f64.exp(), scaling: Some(scaling) };
        let plain = Turning { scaling: None, ..scaled };
        // The turns in 64 positions are 10.2, 1.38, 0.19 and 0.025.
        let ratios: Vec<f64> = (0..4).map(|pair| scaled.angle(3, pair) / plain.angle(3, pair)).collect();
        let turns = 64.0 / (TAU * 2.0_f64.exp());
        let smooth = (turns - 1.0) / 3.0;
        for (found, expected) in ratios.iter().zip([1.0, smooth + (1.0 - smooth) / 8.0, 0.125, 0.125]) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }
}
