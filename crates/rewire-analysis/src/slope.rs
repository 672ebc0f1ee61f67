//! Whether a metric has a gradient to attribute by: a zero that only says "the gradient is 0 here" is no result.

use burn::tensor::backend::Backend;
use rewire_model::Transformer;
use rewire_tasks::{AtClean, Metric, PromptPairs};

use crate::finite::{check_run, the_metric};
use crate::runs::Portion;
use crate::{AnalysisError, Direction};

/// Which method takes gradients, and of which direction's base run.
pub(crate) struct Linearity {
    pub(crate) method: &'static str,
    pub(crate) at: Direction,
    /// Whether the method can take them of the other run instead.
    pub(crate) has_other_direction: bool,
}

impl Linearity {
    /// Refuses a metric that is at its minimum or maximum in the run that gradients are taken of.
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

/// What is known of the metric on some prompts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Of the run that is linearised.
    pub(crate) base: Vec<f32>,
    /// Of the other run; nothing where no other is needed.
    pub(crate) source: Vec<f32>,
    /// The largest size of the metric's gradient with respect to a logit of the base run.
    pub(crate) slope: Vec<f32>,
}

/// A gradient says nothing where logits would have to move by more than this for it to explain the change of the metric.
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
        portion: &Portion,
        direction: Direction,
    ) -> Result<(), AnalysisError> {
        let [base, source] = portion.base_and_source(direction);
        let what = the_metric(metric);
        check_run(model, &what, portion, &base, &self.base)?;
        check_run(model, &what, portion, &source, &self.source)?;
        check_run(model, &format!("the gradient of {what}"), portion, &base, &self.slope)
    }

    /// The prompts whose two runs differ and on which the gradient vanishes: it is 0, or so small that logits would have to move by
    /// ten thousand for it to explain the change of the metric.
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
