//! The built-in metrics as one type.

use burn::tensor::{Tensor, backend::Backend};

use crate::metrics::accuracy::Accuracy;
use crate::metrics::divergence::KlDivergence;
use crate::metrics::linear::LogitDiff;
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
            BuiltinMetric::KlDivergence(m) => m.name(),
            BuiltinMetric::Accuracy(m) => m.name(),
        }
    }

    fn reads(&self) -> Reads {
        match self {
            BuiltinMetric::LogitDiff(m) => m.reads(),
            BuiltinMetric::Probability(m) => m.reads(),
            BuiltinMetric::ProbabilityDifference(m) => m.reads(),
            BuiltinMetric::KlDivergence(m) => m.reads(),
            BuiltinMetric::Accuracy(m) => m.reads(),
        }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        match self {
            BuiltinMetric::LogitDiff(m) => m.evaluate(logits, prompts),
            BuiltinMetric::Probability(m) => m.evaluate(logits, prompts),
            BuiltinMetric::ProbabilityDifference(m) => m.evaluate(logits, prompts),
            BuiltinMetric::KlDivergence(m) => m.evaluate(logits, prompts),
            BuiltinMetric::Accuracy(m) => m.evaluate(logits, prompts),
        }
    }

    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        match self {
            BuiltinMetric::LogitDiff(m) => m.rounding(logits, prompts),
            BuiltinMetric::Probability(m) => m.rounding(logits, prompts),
            BuiltinMetric::ProbabilityDifference(m) => m.rounding(logits, prompts),
            BuiltinMetric::KlDivergence(m) => m.rounding(logits, prompts),
            BuiltinMetric::Accuracy(m) => m.rounding(logits, prompts),
        }
    }

    fn is_differentiable(&self) -> bool {
        match self {
            BuiltinMetric::LogitDiff(m) => m.is_differentiable(),
            BuiltinMetric::Probability(m) => m.is_differentiable(),
            BuiltinMetric::ProbabilityDifference(m) => m.is_differentiable(),
            BuiltinMetric::KlDivergence(m) => m.is_differentiable(),
            BuiltinMetric::Accuracy(m) => m.is_differentiable(),
        }
    }

    fn at_clean(&self) -> AtClean {
        match self {
            BuiltinMetric::LogitDiff(m) => m.at_clean(),
            BuiltinMetric::Probability(m) => m.at_clean(),
            BuiltinMetric::ProbabilityDifference(m) => m.at_clean(),
            BuiltinMetric::KlDivergence(m) => m.at_clean(),
            BuiltinMetric::Accuracy(m) => m.at_clean(),
        }
    }
}
