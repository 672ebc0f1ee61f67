//! The question of an analysis: the prompt pairs, the metric, the effect scale, and which run is
//! patched.

use std::fmt;
use std::str::FromStr;

use rewire_input::did_you_mean;
use rewire_model::BackwardRule;
use rewire_tasks::PromptPairs;
use serde::{Deserialize, Serialize};

/// The question of an analysis: how a metric changes on prompt pairs, and the effect scale.
///
/// ```
/// use rewire_analysis::run::{Question, Scale};
/// use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
///
/// let pair = PromptPair {
///     clean: vec![1, 2],
///     corrupted: vec![1, 3],
///     answers: vec![4],
///     wrong_answers: vec![5],
/// };
/// let pairs = PromptPairs::new(vec![pair]).unwrap();
/// let metric = LogitDiff::new(&pairs);
/// assert_eq!(Question::new(&pairs, &metric).scale, Scale::Normalized);
/// assert_eq!(Question::new(&pairs, &metric).in_metric_units().scale, Scale::Metric);
/// ```
#[derive(Debug)]
pub struct Question<'a, M> {
    /// The prompt pairs.
    pub pairs: &'a PromptPairs,
    /// The metric, evaluated on each run.
    pub metric: &'a M,
    /// The effect scale.
    pub scale: Scale,
    /// What the backward pass of an estimate computes. Exact methods have no backward pass.
    pub backward: BackwardRule,
}

impl<'a, M> Question<'a, M> {
    /// Asks for normalized effects: shares of the change of the metric from corrupted to clean.
    #[must_use]
    pub fn new(pairs: &'a PromptPairs, metric: &'a M) -> Self {
        Self { pairs, metric, scale: Scale::Normalized, backward: BackwardRule::Gradient }
    }

    /// Asks for effects in the units of the metric.
    #[must_use]
    pub fn in_metric_units(self) -> Self {
        Self { scale: Scale::Metric, ..self }
    }

    /// Asks for effects on this scale.
    #[must_use]
    pub fn on_scale(self, scale: Scale) -> Self {
        Self { scale, ..self }
    }

    /// Asks for estimates by this backward rule.
    #[must_use]
    pub fn by_rule(self, backward: BackwardRule) -> Self {
        Self { backward, ..self }
    }
}

// Not derived, because a derive would require a metric that can be copied.
impl<M> Clone for Question<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Question<'_, M> {}

/// Which run is patched, and which run the activations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The corrupted run is patched with clean activations. This shows which nodes suffice to
    /// restore the behavior.
    Denoising,
    /// The clean run is patched with corrupted activations. This shows which nodes are necessary
    /// for the behavior.
    Noising,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Denoising => "denoising",
            Direction::Noising => "noising",
        })
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "denoising" => Ok(Direction::Denoising),
            "noising" => Ok(Direction::Noising),
            other => {
                let suggested = did_you_mean(other, ["denoising", "noising"]);
                Err(format!("unknown direction `{other}`; use denoising or noising{suggested}"))
            }
        }
    }
}

/// The effect scale. On both scales an effect is the metric on the patched run less the metric on
/// the same run without the patch: a node without effect has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Share of the clean mean less the corrupted mean. When denoising, 1 restores all of the
    /// behavior; when noising, -1 removes all of it.
    #[serde(alias = "normalised")]
    Normalized,
    /// Units of the metric, such as logits for a logit difference.
    Metric,
}
