//! The built-in metrics as one type.

use burn::tensor::{Tensor, backend::Backend};

use crate::metrics::accuracy::Accuracy;
use crate::metrics::divergence::KlDivergence;
use crate::metrics::linear::LogitDiff;
use crate::metrics::log_probability::LogProbability;
use crate::metrics::metric::{AtClean, Metric, Reads};
use crate::metrics::probability::{Probability, ProbabilityDifference};

/// A built-in metric, chosen at run time.
#[derive(Debug, Clone)]
pub enum BuiltinMetric {
    /// See [`LogitDiff`].
    LogitDiff(LogitDiff),
    /// See [`Probability`].
    Probability(Probability),
    /// See [`ProbabilityDifference`].
    ProbabilityDifference(ProbabilityDifference),
    /// See [`LogProbability`].
    LogProbability(LogProbability),
    /// See [`KlDivergence`].
    KlDivergence(KlDivergence),
    /// See [`Accuracy`].
    Accuracy(Accuracy),
}

impl Metric for BuiltinMetric {
    fn name(&self) -> &'static str {
        match self {
            BuiltinMetric::LogitDiff(m) => m.name(),
            BuiltinMetric::Probability(m) => m.name(),
            BuiltinMetric::ProbabilityDifference(m) => m.name(),
            BuiltinMetric::LogProbability(m) => m.name(),
            BuiltinMetric::KlDivergence(m) => m.name(),
            BuiltinMetric::Accuracy(m) => m.name(),
        }
    }

    fn reads(&self) -> Reads {
        match self {
            BuiltinMetric::LogitDiff(m) => m.reads(),
            BuiltinMetric::Probability(m) => m.reads(),
            BuiltinMetric::ProbabilityDifference(m) => m.reads(),
            BuiltinMetric::LogProbability(m) => m.reads(),
            BuiltinMetric::KlDivergence(m) => m.reads(),
            BuiltinMetric::Accuracy(m) => m.reads(),
        }
    }

    fn positions_per_prompt(&self) -> usize {
        match self {
            BuiltinMetric::LogitDiff(m) => m.positions_per_prompt(),
            BuiltinMetric::Probability(m) => m.positions_per_prompt(),
            BuiltinMetric::ProbabilityDifference(m) => m.positions_per_prompt(),
            BuiltinMetric::LogProbability(m) => m.positions_per_prompt(),
            BuiltinMetric::KlDivergence(m) => m.positions_per_prompt(),
            BuiltinMetric::Accuracy(m) => m.positions_per_prompt(),
        }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        match self {
            BuiltinMetric::LogitDiff(m) => m.evaluate(logits, prompts),
            BuiltinMetric::Probability(m) => m.evaluate(logits, prompts),
            BuiltinMetric::ProbabilityDifference(m) => m.evaluate(logits, prompts),
            BuiltinMetric::LogProbability(m) => m.evaluate(logits, prompts),
            BuiltinMetric::KlDivergence(m) => m.evaluate(logits, prompts),
            BuiltinMetric::Accuracy(m) => m.evaluate(logits, prompts),
        }
    }

    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        match self {
            BuiltinMetric::LogitDiff(m) => m.rounding(logits, prompts),
            BuiltinMetric::Probability(m) => m.rounding(logits, prompts),
            BuiltinMetric::ProbabilityDifference(m) => m.rounding(logits, prompts),
            BuiltinMetric::LogProbability(m) => m.rounding(logits, prompts),
            BuiltinMetric::KlDivergence(m) => m.rounding(logits, prompts),
            BuiltinMetric::Accuracy(m) => m.rounding(logits, prompts),
        }
    }

    fn is_differentiable(&self) -> bool {
        match self {
            BuiltinMetric::LogitDiff(m) => m.is_differentiable(),
            BuiltinMetric::Probability(m) => m.is_differentiable(),
            BuiltinMetric::ProbabilityDifference(m) => m.is_differentiable(),
            BuiltinMetric::LogProbability(m) => m.is_differentiable(),
            BuiltinMetric::KlDivergence(m) => m.is_differentiable(),
            BuiltinMetric::Accuracy(m) => m.is_differentiable(),
        }
    }

    fn at_clean(&self) -> AtClean {
        match self {
            BuiltinMetric::LogitDiff(m) => m.at_clean(),
            BuiltinMetric::Probability(m) => m.at_clean(),
            BuiltinMetric::ProbabilityDifference(m) => m.at_clean(),
            BuiltinMetric::LogProbability(m) => m.at_clean(),
            BuiltinMetric::KlDivergence(m) => m.at_clean(),
            BuiltinMetric::Accuracy(m) => m.at_clean(),
        }
    }
}
