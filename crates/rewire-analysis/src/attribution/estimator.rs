//! Which estimate attribution patching makes of nodes: the plain one, or one with a correction of
//! AtP*.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a change of a head's queries or keys is followed to its attention pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatternChange {
    /// By the gradient at the queries and keys.
    #[default]
    Gradient,
    /// The pattern is computed again with the patched queries or keys, and the gradient starts at
    /// the pattern: the QK fix.
    QkFix,
}

/// The layers that the gradient passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientPaths {
    /// Every layer.
    #[default]
    AllLayers,
    /// Every layer but one, for one layer after the other. The estimate is the mean absolute value:
    /// GradDrop.
    GradDrop,
}

/// The estimate of attribution patching. The default is AtP (Nanda 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Estimator {
    /// How changes of queries and keys are followed to the pattern.
    pub patterns: PatternChange,
    /// The layers that the gradient passes through.
    pub layers: GradientPaths,
}

impl Estimator {
    /// Returns AtP* (Kramár et al. 2024): the QK fix and GradDrop.
    ///
    /// ```
    /// use rewire_analysis::attribution::Estimator;
    ///
    /// assert_eq!(Estimator::atp_star().to_string(), "AtP*");
    /// assert_eq!(Estimator::default().to_string(), "AtP");
    /// ```
    #[must_use]
    pub fn atp_star() -> Self {
        Self { patterns: PatternChange::QkFix, layers: GradientPaths::GradDrop }
    }

    /// Returns whether estimates are sizes without a sign.
    #[must_use]
    pub fn is_unsigned(self) -> bool {
        self.layers == GradientPaths::GradDrop
    }

    /// Returns the cost of the backward passes, in forward and backward passes through the model.
    pub(crate) fn backward_passes(self, n_layers: usize) -> f64 {
        match self.layers {
            GradientPaths::AllLayers => 1.0,
            // With layer `l` dropped, a pass runs through the `l` layers before it.
            GradientPaths::GradDrop => 1.0 + n_layers.saturating_sub(1) as f64 / 2.0,
        }
    }
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.patterns, self.layers) {
            (PatternChange::Gradient, GradientPaths::AllLayers) => "AtP",
            (PatternChange::QkFix, GradientPaths::AllLayers) => "AtP with the QK fix",
            (PatternChange::Gradient, GradientPaths::GradDrop) => "AtP with GradDrop",
            (PatternChange::QkFix, GradientPaths::GradDrop) => "AtP*",
        })
    }
}
