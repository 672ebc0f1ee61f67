//! Backward rules: what a backward pass uses in the place of some derivatives.
//!
//! A rule changes no activation. It detaches factors of the tracked forward, so that the tape holds
//! another function with the same value: the backward pass then is that function's. The gradient
//! is the rule that detaches nothing.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Tensor, backend::Backend};
use rewire_input::did_you_mean;
use rewire_tensor::{cast_like, to_f32};
use serde::{Deserialize, Serialize};

use crate::config::Activation;
use crate::kernels::surrogate::{times_backward, with_backward_of};
use crate::kernels::{activate, gated};

/// What the backward pass of a run computes.
///
/// RelP and GIM pass back numbers that are not the gradient. They hold factors constant through
/// which a large change acts otherwise than its gradient says, so that the first-order estimate of
/// a large change is nearer to its exact effect.
///
/// | part of the model | gradient | RelP | GIM |
/// |---|---|---|---|
/// | scale of every norm | differentiated | constant | constant |
/// | activation function `a(x)` | `a'(x)` | `a(x) / x` (ReLU: `a'(x)`) | `a'(x)` |
/// | product of a gated MLP | product rule | half of the product rule | half of the product rule |
/// | softmax of scores `x` | at temperature 1 | at temperature 1 | at temperature 2 |
/// | queries and keys, values | times 1 | times 1 | times 1/4, times 1/2 |
///
/// The scales are those of all norms: before and after attention and MLP, of queries and keys, and
/// before the unembedding. A layer norm still centers. The softmax of GIM has the derivative
/// `diag(s) - s sᵀ` with `s = softmax(x / 2)`, without a factor 1/2. The ratio of RelP divides by
/// `x` moved away from 0 by 1e-6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackwardRule {
    /// The gradient.
    #[default]
    Gradient,
    /// Relevance patching: the rules of layer-wise relevance propagation (Rezaei Jafari et al.
    /// 2025, arXiv 2508.21258).
    Relp,
    /// Gradient interaction modifications (Edin et al. 2025, arXiv 2505.17630).
    Gim,
}

impl BackwardRule {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::Gradient, Self::Relp, Self::Gim];

    /// Returns the name in commands and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::Relp => "relp",
            Self::Gim => "gim",
        }
    }

    /// Returns whether the scales of norms are constants of the backward pass.
    #[must_use]
    pub fn holds_norm_scales(self) -> bool {
        self != Self::Gradient
    }

    /// Returns the scale of a norm, which is a constant of the backward pass if the rule holds it.
    pub(crate) fn scale<B: Backend, const D: usize>(self, scale: Tensor<B, D>) -> Tensor<B, D> {
        if self.holds_norm_scales() { scale.detach() } else { scale }
    }

    /// Applies the activation function of an MLP to `x` `[batch, pos, d_mlp]`.
    pub(crate) fn activate<B: Backend>(self, x: Tensor<B, 3>, activation: Activation) -> Tensor<B, 3> {
        match self {
            // The ratio of ReLU is its derivative.
            Self::Relp if activation != Activation::Relu => {
                let held = x.clone().detach();
                let value = activate(held.clone(), activation);
                let ratio = cast_like(to_f32(value.clone()) / away_from_zero(to_f32(held)), &x);
                with_backward_of(value, x * ratio)
            }
            _ => activate(x, activation),
        }
    }

    /// Applies the activation function of a gated MLP to `gate` and multiplies the result by
    /// `factor`, both `[batch, pos, d_mlp]`.
    pub(crate) fn gated<B: Backend>(
        self,
        gate: Tensor<B, 3>,
        factor: Tensor<B, 3>,
        activation: Activation,
    ) -> Tensor<B, 3> {
        match self {
            Self::Gradient => gated(gate, factor, activation),
            Self::Relp => times_backward(self.activate(gate, activation) * factor, 0.5),
            Self::Gim => times_backward(gated(gate, factor, activation), 0.5),
        }
    }

    /// Returns queries, keys and values, whose gradients the rule may scale.
    pub(crate) fn attended<B: Backend>(self, [q, k, v]: [Tensor<B, 4>; 3]) -> [Tensor<B, 4>; 3] {
        match self {
            Self::Gim => [times_backward(q, 0.25), times_backward(k, 0.25), times_backward(v, 0.5)],
            _ => [q, k, v],
        }
    }

    /// Returns the temperature at which the softmax of attention scores is differentiated.
    pub(crate) fn softmax_temperature(self) -> f64 {
        match self {
            Self::Gim => 2.0,
            _ => 1.0,
        }
    }
}

/// Returns `x` moved away from 0 by 1e-6, and 1e-6 for 0.
fn away_from_zero<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let is_negative = x.clone().lower_elem(0.0);
    let moved = x.clone() + 1e-6;
    moved.mask_where(is_negative, x - 1e-6)
}

impl fmt::Display for BackwardRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackwardRule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|rule| rule.name() == name).ok_or_else(|| {
            let suggested = did_you_mean(name, Self::ALL.map(Self::name));
            format!("unknown backward rule `{name}`; use gradient, relp or gim{suggested}")
        })
    }
}
