//! Trains a toy model from random weights, with burn's autodiff and optimizer.

use crate::manifest::LossPoint;
use crate::manifest::Manifest;
use crate::manifest::TrainingOptions;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use rewire_model::{ModelError, Positions, Run, Transformer, TransformerConfig};
use rewire_tasks::Tokenizer;
use rewire_tasks::ioi::{Corruption, IoiError, IoiGenerator, Split};

use crate::bpe::{BOS, bos_token, train_tokenizer};
use crate::corpus::{Example, training_examples};
use crate::evaluate::score_ioi;
use crate::toy::Toy;

/// A trained model with its tokenizer and manifest.
#[derive(Debug)]
pub struct Trained<B: AutodiffBackend> {
    /// The model, on the inner backend.
    pub model: Transformer<B::InnerBackend>,
    /// Contents of the model's `tokenizer.json`.
    pub tokenizer_json: String,
    /// How the model was trained.
    pub manifest: Manifest,
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The tokenizer could not be made.
    #[error("cannot train the tokenizer: {0}")]
    Tokenizer(String),
    /// The data could not be tokenized.
    #[error(transparent)]
    Data(#[from] IoiError),
    /// The model could not be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The loss is not finite.
    #[error("the loss became {loss} at step {step}; lower the learning rate")]
    Diverged {
        /// The step.
        step: usize,
        /// The loss.
        loss: f64,
    },
}

/// Seed of the prompts that trained models are scored on.
const HELD_OUT_SEED: u64 = 20_221_122;

/// Weight, in the loss, of the tokens before the answer.
const CONTEXT_SHARE: f32 = 0.2;

/// Steps between two points of the loss curve.
const CURVE_STEP: usize = 50;

/// Trains a toy model. Calls `progress` after each step with the step, from 1, and its loss at the
/// answers. The result is deterministic for one seed on one machine.
///
/// # Errors
/// [`TrainError`].
pub fn train<B: AutodiffBackend>(
    toy: Toy,
    options: &TrainingOptions,
    device: &B::Device,
    mut progress: impl FnMut(usize, f64),
) -> Result<Trained<B>, TrainError> {
    let failed = |e: tokenizers::Error| TrainError::Tokenizer(e.to_string());
    let bpe = train_tokenizer().map_err(failed)?;
    let bos = bos_token(&bpe).ok_or_else(|| TrainError::Tokenizer(format!("no {BOS}")))?;
    let tokenizer_json = bpe.to_string(true).map_err(failed)?;
    let tokenizer =
        Tokenizer::from_bytes(tokenizer_json.as_bytes(), "tokenizer.json".as_ref()).map_err(IoiError::from)?;

    let config = config(toy, tokenizer.vocabulary_size(), bos);
    let mut model = Transformer::<B>::trainable(&config, options.seed, device);
    let mut optimizer = AdamWConfig::new()
        .with_beta_2(0.98)
        .with_weight_decay(options.weight_decay)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init::<B, Transformer<B>>();

    let examples = training_examples(options.steps * options.batch, options.seed);
    let mut loss_curve = Vec::new();
    let mut sums = [0.0; 2];
    for (step, examples) in examples.chunks(options.batch).enumerate() {
        let batch = Batch::new(examples, &tokenizer, bos)?;
        let [loss, answer_loss] = losses(&model, &batch)?;
        let values = [&loss, &answer_loss].map(|l| l.clone().into_data().iter::<f64>().sum::<f64>());
        if !values[0].is_finite() {
            return Err(TrainError::Diverged { step, loss: values[0] });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(learning_rate(options, step), model, gradients);

        sums = [sums[0] + values[0], sums[1] + values[1]];
        if (step + 1) % CURVE_STEP == 0 {
            let [loss, answer_loss] = sums.map(|s| s / CURVE_STEP as f64);
            loss_curve.push(LossPoint { step: step + 1, loss, answer_loss });
            sums = [0.0; 2];
        }
        progress(step + 1, values[1]);
    }

    let model = model.valid();
    let prompts = IoiGenerator::all_names().sample(options.evaluate_on.max(1), HELD_OUT_SEED, Split::HeldOut);
    let pairs = Corruption::S2ToIo.pairs(&prompts, &tokenizer, Some(bos))?;
    let manifest = Manifest {
        model: toy.name().to_owned(),
        options: *options,
        parameters: burn::module::Module::num_params(&model),
        loss_curve,
        held_out: score_ioi(&model, &pairs)?,
        held_out_seed: HELD_OUT_SEED,
    };
    Ok(Trained { model, tokenizer_json, manifest })
}

/// Returns the configuration of a toy model: small enough to ship, deep enough for heads to
/// compose.
fn config(toy: Toy, d_vocab: usize, bos: u32) -> TransformerConfig {
    let (n_layers, n_heads, d_model, n_ctx) = (4, 8, 128, 48);
    let base = match toy {
        Toy::Gpt2 => TransformerConfig::gpt2(n_layers, n_heads, d_model, d_vocab, n_ctx),
        Toy::NeoX => TransformerConfig {
            // Heads are narrow here: a quarter of 16 dimensions would encode positions with only
            // two angles.
            positions: Positions::Rotary { dims: d_model / n_heads / 2, base: 10_000.0 },
            ..TransformerConfig::neox(n_layers, n_heads, d_model, d_vocab, n_ctx)
        },
    };
    TransformerConfig { d_mlp: 2 * d_model, bos_token: Some(bos), ..base }
}

fn learning_rate(options: &TrainingOptions, step: usize) -> f64 {
    let warm_up = (options.steps / 10).clamp(1, 200);
    if step < warm_up {
        return options.learning_rate * (step + 1) as f64 / warm_up as f64;
    }
    let through = (step - warm_up) as f64 / (options.steps - warm_up).max(1) as f64;
    options.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * through).cos())
}

/// Tokens of one step, padded on the right, with the loss weight of each position.
struct Batch {
    tokens: Vec<Vec<u32>>,
    /// Next tokens, `[row, pos]` flat.
    targets: Vec<i32>,
    /// Weight of the loss at each position before the answer; sums to 1.
    context: Vec<f32>,
    /// Weight of the loss at each answer; sums to 1.
    answer: Vec<f32>,
}

impl Batch {
    fn new(examples: &[Example], tokenizer: &Tokenizer, bos: u32) -> Result<Self, TrainError> {
        let mut rows = Vec::with_capacity(examples.len());
        for Example { prompt, answer } in examples {
            let prompt = tokenizer.encode(prompt).map_err(IoiError::from)?;
            let answer = tokenizer.encode(answer).map_err(IoiError::from)?;
            let end = prompt.len();
            let stop = tokenizer.encode(".").map_err(IoiError::from)?;
            let row: Vec<u32> = [bos].into_iter().chain(prompt).chain(answer).chain(stop).chain([bos]).collect();
            rows.push((row, end));
        }
        // Inputs are all tokens except the last, and targets are all tokens except the first.
        let width = rows.iter().map(|(row, _)| row.len() - 1).max().unwrap_or(0);
        let n_context: usize = rows.iter().map(|(row, _)| row.len() - 2).sum();
        let mut batch = Self { tokens: Vec::new(), targets: Vec::new(), context: Vec::new(), answer: Vec::new() };
        let share = 1.0 / rows.len() as f32;
        for (row, end) in rows {
            let at = |i: usize| row.get(i).copied().unwrap_or(bos);
            batch.tokens.push((0..width).map(at).collect());
            batch.targets.extend((1..=width).map(|i| at(i) as i32));
            let inside = |i: usize| i + 1 < row.len() && i != end;
            batch.context.extend((0..width).map(|i| if inside(i) { 1.0 / n_context as f32 } else { 0.0 }));
            batch.answer.extend((0..width).map(|i| if i == end { share } else { 0.0 }));
        }
        Ok(batch)
    }
}

/// Returns the loss to minimize, and its part at the answers, each `[1]`.
fn losses<B: AutodiffBackend>(model: &Transformer<B>, batch: &Batch) -> Result<[Tensor<B, 1>; 2], ModelError> {
    let tokens = model.tokens(&batch.tokens)?;
    let [rows, width] = tokens.dims();
    let device = tokens.device();
    let n = rows * width;
    let logits = model.forward(Run::tokens(tokens), ())?;
    let d_vocab = logits.dims()[2];
    let targets = Tensor::<B, 2, Int>::from_data(TensorData::new(batch.targets.clone(), [n, 1]), &device);
    let surprise = log_softmax(logits.reshape([n, d_vocab]), 1).gather(1, targets).reshape([n]).neg();
    let weighted = |weights: &Vec<f32>| {
        (surprise.clone() * Tensor::from_data(TensorData::new(weights.clone(), [n]), &device)).sum()
    };
    let answer = weighted(&batch.answer);
    Ok([answer.clone() + weighted(&batch.context) * CONTEXT_SHARE, answer])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};

    #[test]
    fn training_lowers_the_loss_and_is_deterministic() {
        let options = TrainingOptions { steps: 100, batch: 16, evaluate_on: 4, ..TrainingOptions::default() };
        for toy in Toy::ALL {
            let run = || train::<Autodiff<Flex>>(toy, &options, &Default::default(), |_, _| {}).unwrap();
            let [first, second] = [run(), run()];
            let [early, late] = [first.manifest.loss_curve[0].loss, first.manifest.loss_curve[1].loss];
            assert!(late < 0.8 * early, "{toy}: the loss went from {early} to {late}");
            assert_eq!(first.manifest, second.manifest);
            let weights = |t: &Trained<Autodiff<Flex>>| rewire_model::tensors_to_save(&t.model).unwrap();
            assert_eq!(weights(&first), weights(&second), "{toy}: the same seed gave other weights");
        }
    }
}
