//! Checks that the metric has a gradient on the run that attribution linearizes.

use burn::tensor::backend::Backend;
use rewire_model::Transformer;
use rewire_tasks::{AtClean, Metric, PromptPairs};

use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::finite::{check_run, the_metric};
use crate::run::question::Direction;

/// A gradient method, and the direction whose base run it differentiates.
pub(crate) struct Linearity {
    pub(crate) method: &'static str,
    pub(crate) at: Direction,
    /// Whether the method can differentiate the other run instead.
    pub(crate) has_other_direction: bool,
}

impl Linearity {
    /// Refuses a metric whose gradient is 0 on the run that is differentiated.
    pub(crate) fn check<M: Metric>(&self, metric: &M) -> Result<(), AnalysisError> {
        let Self { method, at, has_other_direction } = *self;
        match (metric.at_clean(), at) {
            (AtClean::Stationary, Direction::Noising) => {
                Err(AnalysisError::Stationary { method, metric: metric.name(), has_other_direction })
            }
            _ => Ok(()),
        }
    }
}

/// The metric on both runs of some prompts, and its gradient.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// The metric on the run that is linearized.
    pub(crate) base: Vec<f32>,
    /// The metric on the other run; empty if the method needs no other run.
    pub(crate) source: Vec<f32>,
    /// The largest absolute gradient of the metric with respect to a logit of the base run.
    pub(crate) slope: Vec<f32>,
}

/// The gradient counts as vanished if logits would have to move by more than this to explain the
/// change of the metric.
const FARTHEST: f32 = 1e4;

impl Metrics {
    pub(crate) fn extend(&mut self, more: Self) {
        self.base.extend(more.base);
        self.source.extend(more.source);
        self.slope.extend(more.slope);
    }

    /// Refuses metrics and slopes of a batch that are not finite.
    pub(crate) fn check<B: Backend>(
        &self,
        model: &Transformer<B>,
        metric: &str,
        batch: &PromptBatch,
        direction: Direction,
    ) -> Result<(), AnalysisError> {
        let [base, source] = batch.base_and_source(direction);
        let what = the_metric(metric);
        check_run(model, &what, batch, &base, &self.base)?;
        check_run(model, &what, batch, &source, &self.source)?;
        check_run(model, &format!("the gradient of {what}"), batch, &base, &self.slope)
    }

    /// Returns the prompts whose two runs differ and on which the gradient vanishes. A gradient
    /// vanishes if it is 0, or if logits would have to move by more than 10,000 for it to explain
    /// the change of the metric.
    ///
    /// # Errors
    /// [`AnalysisError::GradientVanishes`] if it is exactly 0 on all prompts whose runs differ.
    pub(crate) fn vanished<M: Metric>(&self, pairs: &PromptPairs, metric: &M) -> Result<Vec<usize>, AnalysisError> {
        let (reads, per_prompt) = (metric.reads().positions, metric.positions_per_prompt().max(1));
        let last_read: Vec<usize> = reads.chunks(per_prompt).filter_map(|of| of.iter().copied().max()).collect();
        let differs = |&prompt: &usize| pairs.first_difference(prompt).is_some_and(|first| first <= last_read[prompt]);
        let difference =
            |prompt: usize| self.source.get(prompt).map_or(0.0, |source| (source - self.base[prompt]).abs());
        let differing: Vec<usize> = (0..pairs.len()).filter(differs).collect();
        if !differing.is_empty() && differing.iter().all(|&prompt| self.slope[prompt] == 0.0) {
            return Err(AnalysisError::GradientVanishes { metric: metric.name() });
        }
        let vanishes =
            |&prompt: &usize| self.slope[prompt] == 0.0 || self.slope[prompt] * FARTHEST < difference(prompt);
        Ok(differing.into_iter().filter(vanishes).collect())
    }
}
