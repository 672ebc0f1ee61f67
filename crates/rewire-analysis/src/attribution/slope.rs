//! Whether the metric has a gradient at the run that attribution linearizes.

use burn::tensor::backend::Backend;
use rewire_model::Transformer;
use rewire_tasks::{AtClean, Metric, PromptPairs};

use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::finite::{check_run, the_metric};
use crate::run::question::Direction;

/// A gradient method, and the direction at whose base run it takes gradients.
pub(crate) struct Linearity {
    pub(crate) method: &'static str,
    pub(crate) at: Direction,
    /// Whether the method can take gradients at the other run instead.
    pub(crate) has_other_direction: bool,
}

impl Linearity {
    /// Refuses a metric whose gradient is 0 at the run at which gradients are taken.
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

/// The metric of both runs on some prompts, and its gradient.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// The metric of the run that is linearized.
    pub(crate) base: Vec<f32>,
    /// The metric of the other run; empty if the method needs no other run.
    pub(crate) source: Vec<f32>,
    /// The largest size of the metric's gradient with respect to a logit of the base run.
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

    /// Refuses metrics and slopes of a portion that are not finite.
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

    /// Returns the prompts whose two runs differ and on which the gradient vanishes: it is 0, or
    /// logits would have to move by ten thousand for it to explain the change of the metric.
    ///
    /// # Errors
    /// [`AnalysisError::GradientVanishes`] if it is exactly 0 on all prompts whose runs differ.
    pub(crate) fn vanished<M: Metric>(&self, pairs: &PromptPairs, metric: &M) -> Result<Vec<usize>, AnalysisError> {
        let read = metric.reads().positions;
        let differs = |&prompt: &usize| pairs.first_difference(prompt).is_some_and(|first| first <= read[prompt]);
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
