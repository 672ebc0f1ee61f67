//! Logits and metrics of unpatched runs.

use burn::tensor::backend::Backend;
use rewire_model::{ReadPositions, Readout, Run, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::effects::Baselines;
use crate::error::AnalysisError;
use crate::run::batch::batches;
use crate::run::cost::Cost;
use crate::run::execution::Execution;
use crate::run::finite::{Watch, check_prompts, nan_or_zero};
use crate::run::fit::catch_device_faults;
use crate::run::record::{check_pairs, run_baselines};
use crate::run::transfer::to_vec;

/// Returns the logits of the clean prompts at END over the whole vocabulary, one row per prompt.
/// They are the reference for [`KlDivergence`](rewire_tasks::KlDivergence). Runs `prompt_batch`
/// prompts at once.
///
/// # Errors
/// [`AnalysisError`] if the model cannot run the pairs.
pub fn clean_logits<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    prompt_batch: usize,
) -> Result<Vec<Vec<f32>>, AnalysisError> {
    clean_logits_at(model, pairs, &pairs.ends(), prompt_batch)
}

/// Returns the logits of the clean prompts at these positions, one per prompt, like
/// [`clean_logits`].
///
/// # Errors
/// [`AnalysisError::MetricOfOtherPairs`] if there are not as many positions as pairs;
/// [`AnalysisError`] if the model cannot run the pairs.
pub fn clean_logits_at<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    positions: &[usize],
    prompt_batch: usize,
) -> Result<Vec<Vec<f32>>, AnalysisError> {
    if positions.len() != pairs.len() {
        return Err(AnalysisError::MetricOfOtherPairs { expected: pairs.len(), found: positions.len() });
    }
    catch_device_faults::<B, _>(&model.device(), || {
        let mut rows: Vec<Vec<f32>> = Vec::with_capacity(pairs.len());
        for batch in pairs.batches(prompt_batch) {
            let read = positions[rows.len()..][..batch.len()].to_vec();
            let readout = Readout { positions: ReadPositions::Each(read), columns: None };
            let mut watch = Watch::new();
            let logits = model.forward(Run::tokens(model.tokens(&batch.clean())?).with_readout(readout), &mut watch)?;
            let finite = to_vec(watch.mark(nan_or_zero(&logits)));
            let numbers: Vec<usize> = (rows.len()..rows.len() + batch.len()).collect();
            check_prompts(model, "an activation on the clean run", &batch.clean(), &numbers, &finite)?;
            rows.extend(to_vec(logits).chunks(model.config().d_vocab).map(<[f32]>::to_vec));
        }
        Ok(rows)
    })
}

/// Returns a metric on the clean and on the corrupted prompts, without patching. Runs
/// `prompt_batch` prompts at once.
///
/// # Errors
/// [`AnalysisError`] if the model cannot run the pairs, the metric belongs to other pairs, or a
/// value is not finite.
pub fn unpatched_metric<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    prompt_batch: usize,
) -> Result<Baselines, AnalysisError> {
    check_pairs(model, pairs)?;
    catch_device_faults::<B, _>(&model.device(), || {
        let batches = batches(pairs, metric, prompt_batch)?;
        let found = run_baselines(model, metric, &batches, &Execution::default(), |_| Cost::default())?;
        found.ok_or(AnalysisError::PassesLeft)
    })
}
