//! Unpatched runs: their activations and metric, and the baselines that effects are changes of.

use crate::effects::Baselines;
use crate::error::AnalysisError;
use crate::node::kind::NodeKind;
use crate::run::batch::{PromptBatch, PromptBatches};
use crate::run::checkpoint::WorkId;
use crate::run::execution::Execution;
use crate::run::finite::{Watch, check_run, nan_or_zero, the_metric};
use crate::run::fit::ensure_healthy;
use crate::run::question::{Direction, Scale};
use crate::run::transfer::to_vec;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::ActivationCache;
use rewire_hooks::HookPoint;
use rewire_hooks::Recorder;
use rewire_model::Run;
use rewire_model::Transformer;
use rewire_tasks::Metric;
use rewire_tasks::Normalization;
use rewire_tasks::NormalizationError;
use rewire_tasks::PromptPairs;
/// A run's activations and its metric per prompt.
pub(crate) struct Recorded<B: Backend> {
    pub(crate) cache: ActivationCache<B>,
    pub(crate) metric: Vec<f32>,
}

/// Runs `tokens`, recording the points that `accepts` holds for.
pub(crate) fn record<B: Backend, M: Metric>(
    model: &Transformer<B>,
    tokens: &[Vec<u32>],
    batch: &PromptBatch,
    metric: &M,
    accepts: impl Fn(HookPoint) -> bool + Send + Sync + 'static,
) -> Result<Recorded<B>, AnalysisError> {
    let mut recorder = Recorder::filtered(accepts);
    let run = Run::tokens(model.tokens(tokens)?).with_readout(batch.readout.clone());
    let mut watch = Watch::new();
    let logits = model.forward(run, (&mut recorder, &mut watch))?;
    let values = to_vec(watch.mark(evaluate(metric, logits, &batch.prompts)));
    check_run(model, &the_metric(metric.name()), batch, tokens, &values)?;
    Ok(Recorded { cache: recorder.into_cache(), metric: values })
}

/// Returns the metric of each row of `logits` `[row, 1, column]`; NaN for a row with a logit that
/// is not finite, for every metric.
pub(crate) fn evaluate<B: Backend, M: Metric>(metric: &M, logits: Tensor<B, 3>, prompts: &[usize]) -> Tensor<B, 1> {
    let [rows, _, columns] = logits.dims();
    let nan_or_zero = nan_or_zero(&logits);
    metric.evaluate(logits.reshape([rows, columns]), prompts) + nan_or_zero
}

/// How far rounding inside the metric may put each row's, from the same logits.
pub(crate) fn rounding<B: Backend, M: Metric>(metric: &M, logits: Tensor<B, 3>, prompts: &[usize]) -> Tensor<B, 1> {
    let [rows, _, columns] = logits.dims();
    metric.rounding(logits.reshape([rows, columns]), prompts)
}

/// Refuses what cannot be analyzed, before anything is run.
pub(crate) fn check<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
) -> Result<(), AnalysisError> {
    if nodes.is_empty() {
        return Err(AnalysisError::NoNodes);
    }
    let config = model.config();
    nodes.iter().try_for_each(|node| node.check(config, pairs))?;
    check_pairs(model, pairs)
}

/// Refuses pairs that the model cannot run.
pub(crate) fn check_pairs<B: Backend>(model: &Transformer<B>, pairs: &PromptPairs) -> Result<(), AnalysisError> {
    let config = model.config();
    Ok(pairs.check_model(config.d_vocab, config.n_ctx)?)
}

/// The metrics of paired runs as baselines, whichever of them was patched.
pub(crate) fn baselines(direction: Direction, base: Vec<f32>, source: Vec<f32>) -> Baselines {
    match direction {
        Direction::Denoising => Baselines { clean: source, corrupted: base },
        Direction::Noising => Baselines { clean: base, corrupted: source },
    }
}

/// What a change of the metric is multiplied by to be an effect.
pub(crate) fn effect_scale(baselines: &Baselines, scale: Scale) -> Result<f64, NormalizationError> {
    let [clean, corrupted] = baselines.means();
    match scale {
        Scale::Metric => Ok(1.0),
        Scale::Normalized => Ok(Normalization::new(clean, corrupted)?.scale(1.0)),
    }
}

/// The metric of the unpatched runs: so that baselines without a difference are refused before a
/// sweep and not after it. Those of each portion are one pass of the checkpoint.
pub(crate) fn run_baselines<B: Backend, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batches: &PromptBatches<'_>,
    execution: &Execution,
) -> Result<Baselines, AnalysisError> {
    let mut baselines = Baselines { clean: Vec::new(), corrupted: Vec::new() };
    for number in 0..batches.len() {
        let prompts = batches.prompts(number);
        let id = WorkId::new(prompts.start, 0, "unpatched runs");
        let both = match execution.checkpoint.load(id).filter(|kept| kept.len() == 2 * prompts.len()) {
            Some(kept) => kept,
            None => {
                let batch = batches.get(number);
                let mut both = record(model, &batch.pairs.clean(), &batch, metric, |_| false)?.metric;
                both.extend(record(model, &batch.pairs.corrupted(), &batch, metric, |_| false)?.metric);
                if batches.len() > 1 {
                    ensure_healthy::<B>(&model.device())?;
                    execution.checkpoint.store(id, &both).map_err(AnalysisError::Checkpoint)?;
                }
                both
            }
        };
        let (clean, corrupted) = both.split_at(prompts.len());
        baselines.clean.extend(clean);
        baselines.corrupted.extend(corrupted);
    }
    Ok(baselines)
}
