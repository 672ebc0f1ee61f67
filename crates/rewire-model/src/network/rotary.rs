//! Rotary position embedding, with half-split pairs as in GPT-NeoX and Llama, or adjacent pairs as
//! in GPT-J.

use std::f64::consts::TAU;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rewire_tensor::{cast_like, to_f32};

use crate::config::{Positions, RotaryPairs, RotaryScaling, TransformerConfig};
use crate::kernels::rotated;

/// How fast the pairs of dimensions turn in one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Turning {
    /// The number of leading dimensions that turn.
    dims: usize,
    base: f64,
    scaling: Option<RotaryScaling>,
    pairs: RotaryPairs,
}

/// The rotation angles of a run's positions.
#[derive(Debug, Clone)]
pub(crate) struct Rotary<B: Backend> {
    /// Cosines, `[1, pos, 1, dims]`; `[batch, pos, 1, dims]` if each row has its own positions.
    cos: Tensor<B, 4>,
    /// Sines, with the shape of `cos`.
    sin: Tensor<B, 4>,
    dims: usize,
    pairs: RotaryPairs,
}

impl Turning {
    /// Returns how fast pairs turn in block `layer`, or `None` if the model has no rotary
    /// positions. In a layer that does not rotate, no dimension turns.
    pub(crate) fn of(config: &TransformerConfig, layer: usize) -> Option<Self> {
        let Positions::Rotary { dims, base } = config.positions else { return None };
        let dims = if config.unrotated_layers.contains(&layer) { 0 } else { dims };
        let (base, scaling) = match config.local_rotary_base {
            Some(local) if config.window(layer).is_some() => (local, None),
            _ => (base, config.rotary_scaling),
        };
        Some(Self { dims, base, scaling, pairs: config.rotary_pairs })
    }

    /// Returns the pair of a dimension.
    fn pair(&self, dimension: usize) -> usize {
        match self.pairs {
            RotaryPairs::Halves => dimension % (self.dims / 2),
            RotaryPairs::Adjacent => dimension / 2,
        }
    }

    /// Returns the angle of pair `i` at a position: `position / base^(2 i / dims)`, stretched as
    /// the model says.
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
        let angles = positions.flat_map(|position| (0..dims).map(move |i| turning.angle(position, turning.pair(i))));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        let tensor = |data| Tensor::from_data(TensorData::new(data, shape), device);
        Self { cos: tensor(cos), sin: tensor(sin), dims, pairs: turning.pairs }
    }

    /// Rotates the first `dims` dimensions of each head; `x` is `[batch, pos, head, d_head]`.
    pub(crate) fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        if self.dims == 0 {
            return x;
        }
        let turned = match self.pairs {
            RotaryPairs::Halves => rotated(to_f32(x.clone()), &self.cos, &self.sin),
            RotaryPairs::Adjacent => self.rotated_adjacent(to_f32(x.clone())),
        };
        cast_like(turned, &x)
    }

    /// Rotates pairs of adjacent dimensions. GPT-J's, for which there is no fused operation.
    fn rotated_adjacent(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, pos, heads, d_head] = x.dims();
        let turned = x.clone().narrow(3, 0, self.dims);
        let pairs = turned.clone().reshape([batch, pos, heads, self.dims / 2, 2]);
        let (a, b) = (pairs.clone().narrow(4, 0, 1), pairs.narrow(4, 1, 1));
        let quarter_turn = Tensor::cat(vec![b.neg(), a], 4).reshape([batch, pos, heads, self.dims]);
        let rotated = turned * self.cos.clone() + quarter_turn * self.sin.clone();
        match self.dims == d_head {
            true => rotated,
            false => Tensor::cat(vec![rotated, x.narrow(3, self.dims, d_head - self.dims)], 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_fast_pairs_and_divides_slow_ones() {
        // With base e^8 and 8 dimensions, pair `i` turns by 1 / e^(2 i) per position.
        let scaling = RotaryScaling::Llama3 { factor: 8.0, low_turns: 1.0, high_turns: 4.0, context: 64 };
        let scaled = Turning { dims: 8, base: 8.0_f64.exp(), scaling: Some(scaling), pairs: RotaryPairs::Halves };
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
