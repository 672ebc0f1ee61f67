//! Copy scores: whether a head that attends to a name raises or lowers that name's logit.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use ndarray::Array2;
use rewire_hooks::{HookPoint, Recorder, Site};
use rewire_model::{HeadInput, Run, Transformer};
use rewire_tensor::{matmul, to_f32};

use crate::error::AnalysisError;
use crate::node::kind::Component;
use crate::run::execution::Execution;
use crate::run::finite::check_prompts;
use crate::run::fit::catch_device_faults;
use crate::run::post_norm::PostNorm;
use crate::run::transfer::{flatten_positions, select_rows, to_vec};
use crate::run::workers;

/// Whether the copy score applies the model's norms around a head's output circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyNorms {
    /// No norm, as in the Pythia notebook. The gain of a norm after attention is still applied,
    /// because it cannot be folded into other weights.
    Without,
    /// The norm before the head, and the final norm (Wang et al. 2022; Redwood's code).
    With,
}

/// How often the token that a head attends to is among the tokens that the head raises, or lowers,
/// most.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyScores {
    /// Percentage of names whose own logit is among the five highest, `[layer, head]`.
    pub positive: Array2<f32>,
    /// Percentage of names whose own logit is among the five highest of the negated head output,
    /// `[layer, head]`: the head lowers these names most.
    pub negative: Array2<f32>,
    /// Number of names.
    pub tokens: usize,
}

/// A token counts as copied if it is among this many highest logits.
const TOP: usize = 5;
/// Number of names whose logits are held at once.
const AT_ONCE: usize = 256;

/// Returns the copy scores of every head, in percent.
///
/// The residual stream after block 0 at each name goes through `W_V`, `b_V` and `W_O` of the head
/// and the unembedding. The score is the percentage of names whose own logit is among the five
/// highest. The usual threshold for a name mover is 75, not 0.75.
///
/// In models with a norm after attention, the head's output is also multiplied by that norm's gain.
/// The norm's scale would divide all logits of a name by one number and change no ranking. A bound
/// on the logits changes no ranking either. Both are left out.
///
/// `names` has the positions of each prompt's names, at least one per prompt. All prompts have the
/// same length. Uses `prompt_batch`, `workers` and `progress` of [`Execution`].
///
/// # Errors
/// [`AnalysisError::NoNames`] if a prompt has no names; [`AnalysisError::NameOutside`] if a name
/// lies outside its prompt; [`AnalysisError::PositionsOfOtherPairs`] if `names` has more entries
/// than `prompts`.
pub fn copy_scores<B: Backend>(
    model: &Transformer<B>,
    prompts: &[Vec<u32>],
    names: &[Vec<usize>],
    norms: CopyNorms,
    execution: &Execution,
) -> Result<CopyScores, AnalysisError> {
    if names.len() > prompts.len() {
        let node = "the list of names".to_owned();
        return Err(AnalysisError::PositionsOfOtherPairs { node, expected: prompts.len(), found: names.len() });
    }
    if names.len() < prompts.len() || prompts.is_empty() {
        return Err(AnalysisError::NoNames { prompt: names.len() });
    }
    for (prompt, (tokens, positions)) in prompts.iter().zip(names).enumerate() {
        if positions.is_empty() {
            return Err(AnalysisError::NoNames { prompt });
        }
        if let Some(&position) = positions.iter().find(|&&p| p >= tokens.len()) {
            return Err(AnalysisError::NameOutside { prompt, position, len: tokens.len() });
        }
    }
    // A bound keeps the order of logits, but rounds the largest ones to the same number.
    let model = &model.without_logit_cap();
    catch_device_faults::<B, _>(&model.device(), || {
        let (x, own) = after_first_block(model, prompts, names, execution)?;
        let config = model.config();
        let (n_layers, n_heads) = (config.n_layers, config.n_heads);
        let (mut positive, mut negative) = (Array2::zeros((n_layers, n_heads)), Array2::zeros((n_layers, n_heads)));
        let mut done = 0;
        (execution.progress)(0, n_layers * n_heads);
        let work = |i: usize| Ok::<_, AnalysisError>(of_head(model, [i / n_heads, i % n_heads], &x, &own, norms));
        workers::run(n_layers * n_heads, execution.workers::<B>(&model.device()), work, |i, [raised, lowered]| {
            let share = |n: usize| 100.0 * n as f32 / own.len() as f32;
            positive[[i / n_heads, i % n_heads]] = share(raised);
            negative[[i / n_heads, i % n_heads]] = share(lowered);
            done += 1;
            (execution.progress)(done, n_layers * n_heads);
            Ok(())
        })?;
        Ok(CopyScores { positive, negative, tokens: own.len() })
    })
}

/// Returns the residual stream after block 0 at every name, `[name, d_model]`, and each name's
/// token.
fn after_first_block<B: Backend>(
    model: &Transformer<B>,
    prompts: &[Vec<u32>],
    names: &[Vec<usize>],
    execution: &Execution,
) -> Result<(Tensor<B, 2>, Vec<usize>), AnalysisError> {
    let (mut streams, mut own) = (Vec::new(), Vec::new());
    let size = execution.prompt_batch.max(1);
    for (batch, (prompts, names)) in prompts.chunks(size).zip(names.chunks(size)).enumerate() {
        let mut recorder = Recorder::filtered(|p| p == HookPoint::block(0, Site::ResidPost));
        model.forward(Run::tokens(model.tokens(prompts)?).stop_at(1), &mut recorder)?;
        let x: Tensor<B, 3> = recorder.into_cache().block(0, Site::ResidPost)?;
        let nan_or_zero = to_vec((to_f32(x.clone()) * 0.0).sum_dim(2).sum_dim(1));
        let numbers: Vec<usize> = (0..prompts.len()).map(|prompt| batch * size + prompt).collect();
        check_prompts(model, "the residual stream after block 0", prompts, &numbers, &nan_or_zero)?;
        let pos = x.dims()[1];
        let mut rows = Vec::new();
        for (prompt, positions) in names.iter().enumerate() {
            rows.extend(positions.iter().map(|position| prompt * pos + position));
            own.extend(positions.iter().map(|&position| prompts[prompt][position] as usize));
        }
        streams.push(select_rows(flatten_positions(x), &rows));
    }
    Ok((Tensor::cat(streams, 0), own))
}

/// Returns how many names a head raises into the five highest logits, and how many it lowers into
/// the five lowest.
fn of_head<B: Backend>(
    model: &Transformer<B>,
    [layer, head]: [usize; 2],
    x: &Tensor<B, 2>,
    own: &[usize],
    norms: CopyNorms,
) -> [usize; 2] {
    let [_, d_model] = x.dims();
    let w_o = model.w_o(layer).narrow(0, head, 1).reshape([model.config().d_head, d_model]);
    let sharing = model.config().heads_per_key_value_head();
    let mut counts = [0; 2];
    for (chunk, own) in own.chunks(AT_ONCE).enumerate() {
        let names = own.len();
        let rows = x.clone().narrow(0, chunk * AT_ONCE, names).reshape([names, 1, d_model]);
        let read = match norms {
            CopyNorms::Without => rows,
            CopyNorms::With => model.attention_norm(layer, rows, &mut ()),
        };
        let v = model.head_inputs(layer, HeadInput::V, &[head / sharing], read); // [name, 1, 1, d_head]
        let written = matmul(v.reshape([names, model.config().d_head]), w_o.clone());
        let written = match PostNorm::of(Component::HeadResult, layer, model.config()) {
            Some(norm) => norm.undivided(model, written),
            None => written,
        };
        for (count, sign) in counts.iter_mut().zip([1.0, -1.0]) {
            let turned = (to_f32(written.clone()) * sign).reshape([names, 1, d_model]);
            let logits = match norms {
                CopyNorms::Without => model.logits(turned),
                CopyNorms::With => model.logits(model.unembedding_norm(turned)),
            };
            let d_vocab = logits.dims()[2];
            *count += among_first(logits.reshape([names, d_vocab]), own);
        }
    }
    counts
}

/// Returns for how many rows of `logits` `[name, d_vocab]` the own token is one of the five
/// highest. Ties count against the token, so that a head that writes nothing copies nothing.
fn among_first<B: Backend>(logits: Tensor<B, 2>, own: &[usize]) -> usize {
    let [names, d_vocab] = logits.dims();
    let index: Vec<i32> = own.iter().map(|&token| token as i32).collect();
    let index = Tensor::<B, 2, Int>::from_data(TensorData::new(index, [names, 1]), &logits.device());
    let of_own = logits.clone().gather(1, index).expand([names, d_vocab]);
    // A NaN compares as not below. It counts as above the own token, even if it is the own token's
    // logit.
    let below = to_vec(logits.lower(of_own).float().sum_dim(1));
    below.into_iter().filter(|below| (d_vocab as f32 - below) <= TOP as f32).count()
}
