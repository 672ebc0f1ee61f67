//! Norms, linearized at their inputs in one run.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::NormKind;
use rewire_input::did_you_mean;
use rewire_model::BackwardRule;
use serde::{Deserialize, Serialize};

/// How the norms on an edge pass a change on: the norm after the start head's attention, the norm
/// before the end head's inputs, and the norm on its queries or keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "kebab-case")]
pub enum NormJacobian {
    /// Scales are frozen at their values in the base run: a norm divides by a constant and
    /// multiplies by its gain, and a layer norm also centers.
    Frozen,
    /// Norms are differentiated in full: moving a norm's input also moves its scale.
    Exact,
}

impl NormJacobian {
    /// Returns how the norms of edges are differentiated by a rule, unless a caller chooses it:
    /// frozen if the rule holds the scales of norms.
    #[must_use]
    pub fn of_rule(rule: BackwardRule) -> Self {
        if rule.holds_norm_scales() { NormJacobian::Frozen } else { NormJacobian::Exact }
    }
}

impl std::str::FromStr for NormJacobian {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "frozen" => Ok(NormJacobian::Frozen),
            "exact" => Ok(NormJacobian::Exact),
            other => {
                let suggested = did_you_mean(other, ["exact", "frozen"]);
                Err(format!("unknown norm Jacobian `{other}`; use exact or frozen{suggested}"))
            }
        }
    }
}

/// A norm as a linear map at given inputs, `[row, vector, width]` or `[vector, row, width]`. It
/// maps changes of these inputs to changes of the norm's output. One vector per row stands for any
/// number of changes of it.
pub(crate) struct LinearNorm<B: Backend> {
    kind: NormKind,
    /// The inputs over the scale, centered by a layer norm. `None` if the scale is frozen.
    normalized: Option<Tensor<B, 3>>,
    /// The shape of the inputs, with a width of 1.
    scale: Tensor<B, 3>,
    /// `[width]`.
    gain: Option<Tensor<B, 1>>,
}

impl<B: Backend> LinearNorm<B> {
    /// Linearizes a norm at the inputs `x`, which it divides by `scale`.
    pub(crate) fn at(
        x: Tensor<B, 3>,
        scale: Tensor<B, 3>,
        gain: Option<Tensor<B, 1>>,
        kind: NormKind,
        jacobian: NormJacobian,
    ) -> Self {
        let normalized = match jacobian {
            NormJacobian::Frozen => None,
            NormJacobian::Exact => Some(kind.centered(x) / scale.clone()),
        };
        Self { kind, normalized, scale, gain }
    }

    /// Returns the changes of the norm's output for these changes of its input.
    pub(crate) fn forward(&self, changes: Tensor<B, 3>) -> Tensor<B, 3> {
        self.with_gain(self.divided(changes))
    }

    /// Returns the gradients at the norm's input for these gradients at its output.
    pub(crate) fn backward(&self, gradients: Tensor<B, 3>) -> Tensor<B, 3> {
        self.divided(self.with_gain(gradients))
    }

    fn with_gain(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.gain {
            Some(gain) => x * gain.clone().unsqueeze_dims(&[0, 1]),
            None => x,
        }
    }

    /// Multiplies by the Jacobian of the norm without its gain, which is symmetric: with `n` the
    /// normalized input, `(center(x) - mean(x n) n) / scale`.
    fn divided(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let centered = self.kind.centered(x.clone());
        match &self.normalized {
            None => centered / self.scale.clone(),
            Some(normalized) => {
                let along = (x * normalized.clone()).mean_dim(2);
                (centered - along * normalized.clone()) / self.scale.clone()
            }
        }
    }
}
