//! Makes a model from its weights: loaded, random, or initialized for training.

use std::convert::Infallible;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rewire_hooks::NormKind;

use crate::config::{Positions, TransformerConfig};
use crate::files::layout;
use crate::kernels::queries::ScoreRule;
use crate::network::attention::Attention;
use crate::network::block::Block;
use crate::network::linear::frozen;
use crate::network::matrix::Matrix;
use crate::network::mlp::{Gate, Mlp};
use crate::network::norm::Norm;
use crate::network::transformer::Transformer;
use crate::weights::weight_name::WeightName;

impl<B: Backend> Transformer<B> {
    /// Returns a model with random weights, for tests and benchmarks. The weights are large enough
    /// that attention, norms, biases and the activation function all matter. The same seed gives
    /// the same weights on every machine.
    #[must_use]
    pub fn random(config: &TransformerConfig, seed: u64, device: &B::Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let made = Self::assemble(config, |part: WeightName, _: usize| {
            let (len, [mean, deviation]) = (length(config, part), random_as(config, part));
            Ok::<_, Infallible>(on_device(normal(&mut rng, len, mean, deviation), device))
        });
        match made {
            Ok(model) => model,
            Err(never) => match never {},
        }
    }

    /// Returns a model with random weights that the device generates, for models of several
    /// gigabytes. The same seed gives the same weights on the same backend if nothing else draws
    /// random numbers in the meantime.
    #[must_use]
    pub fn random_on_device(config: &TransformerConfig, seed: u64, device: &B::Device) -> Self {
        B::seed(device, seed);
        let made = Self::assemble(config, |part: WeightName, _: usize| {
            let (len, [mean, deviation]) = (length(config, part), random_as(config, part));
            let normal = burn::tensor::Distribution::Normal(f64::from(mean), f64::from(deviation));
            Ok::<_, Infallible>(Tensor::random([len], normal, device))
        });
        match made {
            Ok(model) => model,
            Err(never) => match never {},
        }
    }

    /// Returns a model initialized for training, with its weights on the autodiff tape.
    ///
    /// Weights are normal with standard deviation 0.02 times `sqrt(768 / d_model)`. Weights that
    /// write to the residual stream are smaller by `sqrt(2 n_layers)`, as in GPT-2. Biases are 0.
    #[must_use]
    pub fn trainable(config: &TransformerConfig, seed: u64, device: &B::Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let deviation = 0.02 * (768.0 / config.d_model as f32).sqrt();
        let made = Self::assemble(config, |part: WeightName, _: usize| {
            let shape = layout::shape(config, part);
            let len = shape.iter().product();
            let values = match part {
                gain if gain.is_gain() => vec![1.0; len],
                _ if shape.len() == 1 => vec![0.0; len],
                WeightName::WO | WeightName::WOut => {
                    normal(&mut rng, len, 0.0, deviation / (2.0 * config.n_layers as f32).sqrt())
                }
                _ => normal(&mut rng, len, 0.0, deviation),
            };
            Ok::<_, Infallible>(on_device(values, device))
        });
        match made {
            Ok(model) => {
                let mut model = model.map(&mut Track);
                // The zeros in the place of biases that the model does not have are constants.
                let constant = |part, b: &mut Param<Tensor<B, 1>>| {
                    if !layout::is_stored(config, part) {
                        *b = frozen(b.val().set_require_grad(false));
                    }
                };
                for Block { attention, mlp, .. } in &mut model.blocks {
                    constant(WeightName::BQkv, &mut attention.b_qkv);
                    constant(WeightName::BO, &mut attention.b_o);
                    constant(WeightName::BIn, &mut mlp.b_in);
                    constant(WeightName::BOut, &mut mlp.b_out);
                    mlp.gate.iter_mut().for_each(|gate| constant(WeightName::BGate, &mut gate.b));
                }
                model
            }
            Err(never) => match never {},
        }
    }

    /// Builds the model from each weight that the files hold. The other biases are zeros.
    pub(crate) fn assemble<S: WeightSource<B>>(config: &TransformerConfig, mut weights: S) -> Result<Self, S::Error> {
        let w_e = weights.matrix(config, WeightName::WE, 0)?;
        let device = w_e.device();
        let w_pos = match config.positions {
            Positions::Learned => {
                let shape = layout::matrix_shape(config, WeightName::WPos);
                Some(frozen(weights.values(WeightName::WPos, 0)?.reshape(shape)))
            }
            Positions::Rotary { .. } => None,
        };
        // No capacity is reserved: the number of layers comes from a file, and a missing layer ends
        // the loop.
        let mut blocks = Vec::new();
        for layer in 0..config.n_layers {
            blocks.push(block(config, layer, &device, &mut weights)?);
        }
        let gain = weights.values(WeightName::FinalGain, 0)?;
        let bias = match config.norm {
            NormKind::Layer => Some(weights.values(WeightName::FinalBias, 0)?),
            NormKind::Rms => None,
        };
        let final_norm = Norm::new(config.norm, gain, bias, config.norm_eps);
        let w_u = match config.tied_unembedding {
            true => None,
            false => Some(weights.matrix(config, WeightName::WU, 0)?),
        };
        let b_u = match config.unembedding_bias {
            true => Some(frozen(weights.values(WeightName::BU, 0)?)),
            false => None,
        };
        Ok(Self { w_e, w_pos, blocks, final_norm, w_u, b_u, config: config.clone() })
    }

    /// Returns a weight's values in the model's layout, or `None` if processing has removed the
    /// weight.
    pub(crate) fn part(&self, part: WeightName, layer: usize) -> Option<Vec<f32>> {
        fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
            tensor.into_data().convert::<f32>().into_vec().unwrap_or_default()
        }
        fn host<B: Backend, const D: usize>(param: &Param<Tensor<B, D>>) -> Vec<f32> {
            numbers(param.val())
        }
        let block = self.blocks.get(layer)?;
        Some(match part {
            WeightName::WE => numbers(self.w_e.val()),
            WeightName::WPos => host(self.w_pos.as_ref()?),
            WeightName::Ln1Gain => host(block.ln1.gain.as_ref()?),
            WeightName::Ln1Bias => host(block.ln1.bias.as_ref()?),
            WeightName::WQkv => numbers(block.attention.w_qkv.val()),
            WeightName::BQkv => host(&block.attention.b_qkv),
            WeightName::QueryGain => host(block.attention.query_norm.as_ref()?.gain.as_ref()?),
            WeightName::KeyGain => host(block.attention.key_norm.as_ref()?.gain.as_ref()?),
            WeightName::AfterAttentionGain => host(block.attention.post_norm.as_ref()?.gain.as_ref()?),
            WeightName::AfterMlpGain => host(block.mlp.post_norm.as_ref()?.gain.as_ref()?),
            WeightName::WGate => numbers(block.mlp.gate.as_ref()?.w.val()),
            WeightName::BGate => host(&block.mlp.gate.as_ref()?.b),
            WeightName::WO => numbers(block.attention.w_o.val()),
            WeightName::BO => host(&block.attention.b_o),
            WeightName::Ln2Gain => host(block.ln2.gain.as_ref()?),
            WeightName::Ln2Bias => host(block.ln2.bias.as_ref()?),
            WeightName::WIn => numbers(block.mlp.w_in.val()),
            WeightName::BIn => host(&block.mlp.b_in),
            WeightName::WOut => numbers(block.mlp.w_out.val()),
            WeightName::BOut => host(&block.mlp.b_out),
            WeightName::FinalGain => host(self.final_norm.gain.as_ref()?),
            WeightName::FinalBias => host(self.final_norm.bias.as_ref()?),
            WeightName::WU => numbers(self.w_u.as_ref()?.val()),
            WeightName::BU => host(self.b_u.as_ref()?),
        })
    }
}

/// Where a model's weights come from.
pub(crate) trait WeightSource<B: Backend> {
    type Error;

    /// Returns a weight, flattened, in the model's layout.
    fn values(&mut self, part: WeightName, layer: usize) -> Result<Tensor<B, 1>, Self::Error>;

    /// Returns a weight that is a matrix.
    fn matrix(&mut self, config: &TransformerConfig, part: WeightName, layer: usize) -> Result<Matrix<B>, Self::Error> {
        Ok(Matrix::in_memory(self.values(part, layer)?.reshape(layout::matrix_shape(config, part))))
    }
}

impl<B: Backend, E, F: FnMut(WeightName, usize) -> Result<Tensor<B, 1>, E>> WeightSource<B> for F {
    type Error = E;

    fn values(&mut self, part: WeightName, layer: usize) -> Result<Tensor<B, 1>, E> {
        self(part, layer)
    }
}

/// Builds a block. The order in which it takes its weights decides those of random models.
fn block<B: Backend, S: WeightSource<B>>(
    config: &TransformerConfig,
    layer: usize,
    device: &B::Device,
    weights: &mut S,
) -> Result<Block<B>, S::Error> {
    let mut stored = |part| match layout::is_stored(config, part) {
        true => weights.values(part, layer).map(Some),
        false => Ok(None),
    };
    // Sizes come from a file. Zeros for biases are made only after matrices have shown their size.
    let or_zeros = |bias: Option<Tensor<B, 1>>, part| {
        frozen(bias.unwrap_or_else(|| Tensor::zeros([length(config, part)], device)))
    };
    let norm = |gain: Option<Tensor<B, 1>>, bias| gain.map(|gain| Norm::new(config.norm, gain, bias, config.norm_eps));
    let [ln1_gain, ln1_bias] = [stored(WeightName::Ln1Gain)?, stored(WeightName::Ln1Bias)?];
    let [ln2_gain, ln2_bias] = [stored(WeightName::Ln2Gain)?, stored(WeightName::Ln2Bias)?];
    let [b_qkv, b_o] = [stored(WeightName::BQkv)?, stored(WeightName::BO)?];
    let [b_in, b_out, b_gate] = [stored(WeightName::BIn)?, stored(WeightName::BOut)?, stored(WeightName::BGate)?];
    let mut matrix = |part| weights.matrix(config, part, layer);
    let [w_qkv, w_o] = [matrix(WeightName::WQkv)?, matrix(WeightName::WO)?];
    let [w_in, w_out] = [matrix(WeightName::WIn)?, matrix(WeightName::WOut)?];
    let w_gate = match layout::is_stored(config, WeightName::WGate) {
        true => Some(matrix(WeightName::WGate)?),
        false => None,
    };
    let mut stored = |part| match layout::is_stored(config, part) {
        true => weights.values(part, layer).map(Some),
        false => Ok(None),
    };
    let [query_norm, key_norm] = [stored(WeightName::QueryGain)?, stored(WeightName::KeyGain)?];
    let [after_attention, after_mlp] = [stored(WeightName::AfterAttentionGain)?, stored(WeightName::AfterMlpGain)?];
    let (divisor, cap, window) = (config.score_divisor(layer), config.score_cap, config.window(layer));
    let ln1 = norm(ln1_gain, ln1_bias).unwrap_or_else(Norm::identity);
    let ln2 = norm(ln2_gain, ln2_bias).unwrap_or_else(|| ln1.clone());
    Ok(Block {
        ln1,
        attention: Attention {
            w_qkv,
            b_qkv: or_zeros(b_qkv, WeightName::BQkv),
            query_norm: norm(query_norm, None),
            key_norm: norm(key_norm, None),
            w_o,
            b_o: or_zeros(b_o, WeightName::BO),
            post_norm: norm(after_attention, None),
            n_heads: config.n_heads,
            n_key_value_heads: config.n_key_value_heads(),
            rule: ScoreRule { divisor, cap, window, softmax_temperature: 1.0 },
        },
        ln2,
        mlp: Mlp {
            w_in,
            b_in: or_zeros(b_in, WeightName::BIn),
            gate: w_gate.map(|w| Gate { w, b: or_zeros(b_gate, WeightName::BGate) }),
            w_out,
            b_out: or_zeros(b_out, WeightName::BOut),
            post_norm: norm(after_mlp, None),
            activation: config.activation,
        },
        parallel: config.parallel_block,
    })
}

/// Returns the number of elements of a weight.
fn length(config: &TransformerConfig, part: WeightName) -> usize {
    layout::shape(config, part).iter().product()
}

/// Returns the mean and the standard deviation of a weight in a random model.
fn random_as(config: &TransformerConfig, part: WeightName) -> [f32; 2] {
    let shape = layout::shape(config, part);
    match part {
        gain if gain.is_gain() => [1.0, 0.2],
        WeightName::WE => [0.0, 0.5],
        WeightName::WPos => [0.0, 0.2],
        _ if shape.len() == 1 => [0.0, 0.1],
        WeightName::WQkv => [0.0, 1.5 / (shape[0] as f32).sqrt()],
        _ => [0.0, 1.0 / (shape[0] as f32).sqrt()],
    }
}

/// Copies values to the device, as a tensor of one dimension.
pub(crate) fn on_device<B: Backend>(values: Vec<f32>, device: &B::Device) -> Tensor<B, 1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

fn normal(rng: &mut ChaCha8Rng, len: usize, mean: f32, deviation: f32) -> Vec<f32> {
    (0..len)
        .map(|_| {
            let sample: f32 = StandardNormal.sample(rng);
            mean + deviation * sample
        })
        .collect()
}

/// Puts every parameter on the autodiff tape.
struct Track;

impl<B: Backend> ModuleMapper<B> for Track {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.set_require_grad(true)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};

    use super::*;

    #[test]
    fn a_model_without_attention_biases_trains_none() {
        let config = TransformerConfig { attention_bias: false, ..TransformerConfig::neox(1, 2, 16, 11, 6) };
        let model = Transformer::<Autodiff<Flex>>::trainable(&config, 0, &Default::default());
        let attention = &model.blocks[0].attention;
        assert!(attention.w_qkv.val().is_require_grad());
        assert!(!attention.b_qkv.val().is_require_grad() && !attention.b_o.val().is_require_grad());
    }
}
