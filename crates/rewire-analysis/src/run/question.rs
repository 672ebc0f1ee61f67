//! What an analysis is asked: the prompt pairs, the metric, its unit, and which run is patched.

use std::fmt;
use std::str::FromStr;

use rewire_tasks::PromptPairs;
use serde::{Deserialize, Serialize};

/// What is asked of a model: how a metric changes on prompt pairs, and the unit of the answer.
///
/// ```
/// use rewire_analysis::run::{Question, Scale};
/// use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
///
/// let pair = PromptPair::new([1, 2], [1, 3], [4], [5]);
/// let pairs = PromptPairs::new(vec![pair]).unwrap();
/// let metric = LogitDiff::new(&pairs);
/// assert_eq!(Question::new(&pairs, &metric).scale, Scale::Normalized);
/// assert_eq!(Question::new(&pairs, &metric).in_metric_units().scale, Scale::Metric);
/// ```
#[derive(Debug)]
pub struct Question<'a, M> {
    /// The prompt pairs.
    pub pairs: &'a PromptPairs,
    /// The metric of each run.
    pub metric: &'a M,
    /// The unit of effects.
    pub scale: Scale,
}

impl<'a, M> Question<'a, M> {
    /// Asks for effects as shares of the metric's change from corrupted to clean.
    #[must_use]
    pub fn new(pairs: &'a PromptPairs, metric: &'a M) -> Self {
        Self { pairs, metric, scale: Scale::Normalized }
    }

    /// Asks for effects in the metric's own unit.
    #[must_use]
    pub fn in_metric_units(self) -> Self {
        Self { scale: Scale::Metric, ..self }
    }

    /// Asks for effects in this unit.
    #[must_use]
    pub fn on_scale(self, scale: Scale) -> Self {
        Self { scale, ..self }
    }
}

// Derived, these would ask the metric to be copied too.
impl<M> Clone for Question<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Question<'_, M> {}

/// Which run is patched, and from which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The corrupted run is patched from the clean one: what suffices to bring the behavior back.
    Denoising,
    /// The clean run is patched from the corrupted one: what is necessary for the behavior.
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
            other => Err(format!("no direction `{other}`; there are denoising and noising")),
        }
    }
}

/// The unit of effects. Both are changes of the metric against the run that is patched, so that a node without effect has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// As a share of clean mean less corrupted mean: denoising, 1 is all of the behavior back; noising, -1 is all of it gone.
    #[serde(alias = "normalised")]
    Normalized,
    /// In the metric's own unit.
    Metric,
}
