//! The metric of an analysis: one of Rewire's, or a Python function of the logits.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use pyo3::prelude::*;
use rewire::{Cpu, LanguageModel};
use rewire_analysis::run::{Scale, clean_logits_at};
use rewire_hooks::AnyRank;
use rewire_input::{did_you_mean, quoted};
use rewire_tasks::{
    Accuracy, AtClean, BuiltinMetric, KlDivergence, LogProbability, LogitDiff, Metric, MetricPosition, Probability,
    ProbabilityDifference, PromptPairs, Reads,
};

use crate::arrays::{from_numpy, to_numpy, values};
use crate::failure::{ArgumentError, Failure};

/// The names of Rewire's metrics.
const NAMES: [&str; 7] =
    ["logit-diff-normalized", "logit-diff", "probability", "prob-diff", "log-prob", "kl", "accuracy"];

/// The name of every metric that is a Python function.
pub(crate) const FUNCTION: &str = "python-function";

/// A metric as Python names it.
pub(crate) enum Choice {
    /// One of [`NAMES`].
    Named(String),
    /// `function(logits [row, d_vocab], prompts [row]) -> [row]`, and whether effects are shares.
    Function(Py<PyAny>, Scale),
}

/// The metric of an analysis.
pub(crate) enum AnyMetric {
    Builtin(BuiltinMetric),
    Function(FunctionMetric),
}

/// A Python function of the logits. It has no gradient.
pub(crate) struct FunctionMetric {
    function: Py<PyAny>,
    reads: Reads,
    /// The first exception of the function.
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Choice {
    /// Reads a name, or a function of the logits. `normalized` says whether the effects of a
    /// function are shares of its change.
    pub(crate) fn read(metric: &Bound<'_, PyAny>, normalized: bool) -> Result<Self, Failure> {
        if let Ok(name) = metric.extract::<String>() {
            return Ok(Choice::Named(name));
        }
        let scale = if normalized { Scale::Normalized } else { Scale::Metric };
        match metric.is_callable() {
            true => Ok(Choice::Function(metric.clone().unbind(), scale)),
            false => Err(Failure::Argument(format!("metric must be a name or a function of the logits, not {metric}"))),
        }
    }

    /// Returns the scale of effects.
    ///
    /// # Errors
    /// If the metric is unknown.
    pub(crate) fn scale(&self) -> Result<Scale, Failure> {
        match self {
            Choice::Function(_, scale) => Ok(*scale),
            Choice::Named(name) if name == NAMES[0] => Ok(Scale::Normalized),
            Choice::Named(name) if NAMES.contains(&name.as_str()) => Ok(Scale::Metric),
            Choice::Named(name) => Err(Failure::Argument(format!(
                "unknown metric {}; use one of {}, or a function of the logits{}",
                quoted(name),
                NAMES.join(", "),
                did_you_mean(name, NAMES)
            ))),
        }
    }

    /// Returns the metric for these pairs. It reads the logits at `position` of each prompt.
    pub(crate) fn metric(
        self,
        model: &LanguageModel<Cpu>,
        pairs: &PromptPairs,
        position: MetricPosition,
        prompt_batch: usize,
    ) -> Result<AnyMetric, Failure> {
        self.scale()?;
        let at = position.of(pairs).map_err(Failure::argument)?;
        let name = match self {
            Choice::Named(name) => name,
            Choice::Function(function, _) => {
                let reads = Reads { positions: at, columns: None };
                return Ok(AnyMetric::Function(FunctionMetric { function, reads, raised: Arc::default() }));
            }
        };
        Ok(AnyMetric::Builtin(match name.as_str() {
            "probability" => BuiltinMetric::Probability(Probability::new(pairs).at(at)),
            "prob-diff" => BuiltinMetric::ProbabilityDifference(ProbabilityDifference::new(pairs).at(at)),
            "log-prob" => BuiltinMetric::LogProbability(LogProbability::new(pairs)),
            "accuracy" => BuiltinMetric::Accuracy(Accuracy::new(pairs).at(at)),
            "kl" => {
                let reference = clean_logits_at(model.transformer(), pairs, &at, prompt_batch)?;
                BuiltinMetric::KlDivergence(KlDivergence::new(pairs, &reference).at(at))
            }
            _ => BuiltinMetric::LogitDiff(LogitDiff::new(pairs).at(at)),
        }))
    }
}

impl AnyMetric {
    /// Returns the exception that the function raised, if it raised one.
    pub(crate) fn raised(&self) -> Option<PyErr> {
        match self {
            AnyMetric::Builtin(_) => None,
            AnyMetric::Function(metric) => metric.raised.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

impl FunctionMetric {
    /// Calls the function.
    fn call<B: Backend>(&self, logits: &Tensor<B, 2>, prompts: &[usize]) -> Result<Vec<f32>, PyErr> {
        let logits = values(AnyRank::from(logits.clone())).map_err(PyErr::from)?;
        Python::with_gil(|py| {
            let found = self.function.call1(py, (to_numpy(py, logits)?, prompts.to_vec()))?;
            let found = from_numpy(found.bind(py))?;
            if found.shape() != [prompts.len()] {
                return Err(ArgumentError::new_err(format!(
                    "the metric returned the shape {:?} for logits of {} rows; return one number per row",
                    found.shape(),
                    prompts.len()
                )));
            }
            Ok(found.into_iter().collect())
        })
    }
}

impl Metric for AnyMetric {
    fn name(&self) -> &'static str {
        match self {
            AnyMetric::Builtin(metric) => metric.name(),
            AnyMetric::Function(_) => FUNCTION,
        }
    }

    fn reads(&self) -> Reads {
        match self {
            AnyMetric::Builtin(metric) => metric.reads(),
            AnyMetric::Function(metric) => metric.reads.clone(),
        }
    }

    fn positions_per_prompt(&self) -> usize {
        match self {
            AnyMetric::Builtin(metric) => metric.positions_per_prompt(),
            AnyMetric::Function(_) => 1,
        }
    }

    /// A function that raises gives NaN, which analyses refuse; its exception is kept.
    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let metric = match self {
            AnyMetric::Builtin(metric) => return metric.evaluate(logits, prompts),
            AnyMetric::Function(metric) => metric,
        };
        let found = metric.call(&logits, prompts).unwrap_or_else(|error| {
            metric.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            vec![f32::NAN; prompts.len()]
        });
        Tensor::from_data(TensorData::new(found, [prompts.len()]), &logits.device())
    }

    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        match self {
            AnyMetric::Builtin(metric) => metric.rounding(logits, prompts),
            AnyMetric::Function(_) => self.evaluate(logits, prompts).abs() * f32::EPSILON,
        }
    }

    fn is_differentiable(&self) -> bool {
        match self {
            AnyMetric::Builtin(metric) => metric.is_differentiable(),
            AnyMetric::Function(_) => false,
        }
    }

    fn at_clean(&self) -> AtClean {
        match self {
            AnyMetric::Builtin(metric) => metric.at_clean(),
            AnyMetric::Function(_) => AtClean::Varies,
        }
    }
}

/// Returns the name of a metric as results hold it.
pub(crate) fn known_name(name: &str) -> &'static str {
    NAMES.into_iter().find(|known| *known == name).unwrap_or(FUNCTION)
}
