//! Unpatched runs: their activations, their metric, and the baselines of effects.

use crate::effects::Baselines;
use crate::error::AnalysisError;
use crate::node::kind::NodeKind;
use crate::run::batch::{PromptBatch, PromptBatches};
use crate::run::checkpoint::{PlannedWork, WorkId};
use crate::run::cost::Cost;
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
/// The recorded activations of a run, and its metric per prompt.
pub(crate) struct Recorded<B: Backend> {
    pub(crate) cache: ActivationCache<B>,
    pub(crate) metric: Vec<f32>,
}

/// Runs `tokens` and records the hook points that `accepts` selects.
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

/// Returns the metric of each row of `logits` `[row, positions read, column]`. For every metric, a
/// row has NaN if one of its logits is not finite.
pub(crate) fn evaluate<B: Backend, M: Metric>(metric: &M, logits: Tensor<B, 3>, prompts: &[usize]) -> Tensor<B, 1> {
    let [rows, reads, columns] = logits.dims();
    let nan_or_zero = nan_or_zero(&logits);
    metric.evaluate(logits.reshape([rows * reads, columns]), prompts) + nan_or_zero
}

/// Returns a bound on the rounding error inside the metric for each row of `logits`
/// `[row, positions read, column]`.
pub(crate) fn rounding<B: Backend, M: Metric>(metric: &M, logits: Tensor<B, 3>, prompts: &[usize]) -> Tensor<B, 1> {
    let [rows, reads, columns] = logits.dims();
    metric.rounding(logits.reshape([rows * reads, columns]), prompts)
}

/// Refuses nodes and pairs that cannot be analyzed, before the model runs.
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

/// Returns the metrics of the base and the source run as baselines, in the order of clean and
/// corrupted.
pub(crate) fn baselines(direction: Direction, base: Vec<f32>, source: Vec<f32>) -> Baselines {
    match direction {
        Direction::Denoising => Baselines { clean: source, corrupted: base },
        Direction::Noising => Baselines { clean: base, corrupted: source },
    }
}

/// Returns the factor that turns a change of the metric into an effect on `scale`.
///
/// # Errors
/// [`NormalizationError`] if the clean and the corrupted mean cannot be normalized.
pub(crate) fn effect_scale(baselines: &Baselines, scale: Scale) -> Result<f64, NormalizationError> {
    let [clean, corrupted] = baselines.means();
    match scale {
        Scale::Metric => Ok(1.0),
        Scale::Normalized => Ok(Normalization::new(clean, corrupted)?.scale(1.0)),
    }
}

/// Returns the metric on the unpatched runs. Sweeps call this first, to refuse baselines without a
/// difference before any patch. The runs of each batch are one pass of the checkpoint, of this
/// `cost`.
///
/// Returns `None` if other processes compute the runs of a batch.
pub(crate) fn run_baselines<B: Backend, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batches: &PromptBatches<'_>,
    execution: &Execution,
    cost: impl Fn(&PromptBatch) -> Cost,
) -> Result<Option<Baselines>, AnalysisError> {
    let mut baselines = Baselines { clean: Vec::new(), corrupted: Vec::new() };
    let mut is_complete = true;
    let id = |number: usize| WorkId::new(batches.prompts(number).start, 0, "unpatched runs");
    // The runs of a single batch are not stored.
    if batches.len() > 1 {
        let planned =
            |number: usize| PlannedWork { id: id(number), cost: cost(&batches.get(number)), setup: Cost::default() };
        execution.checkpoint.begin(&|| (0..batches.len()).map(planned).collect());
    }
    for number in 0..batches.len() {
        let prompts = batches.prompts(number);
        let id = id(number);
        let both = match execution.checkpoint.load(id).filter(|kept| kept.len() == 2 * prompts.len()) {
            Some(kept) => kept,
            None if !execution.checkpoint.takes(id) => {
                is_complete = false;
                continue;
            }
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
    Ok(is_complete.then_some(baselines))
}
