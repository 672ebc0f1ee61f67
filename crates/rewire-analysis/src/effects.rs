//! What an analysis finds.

use std::fmt;

use ndarray::{ArrayD, Axis as Dimension, concatenate};
use serde::{Deserialize, Serialize};

use crate::finite::check_effects;
use crate::{AnalysisError, Direction, NodeKind, Scale};

/// How effects were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Exactly: the model was run with each node replaced.
    ActivationPatching,
    /// To first order: (source - base) . gradient at base.
    AttributionPatching,
    /// Gradients along a line, integrated.
    IntegratedGradients,
    /// Exactly: the model was run with each node removed.
    Ablation,
    /// Exactly: what each node changes along the paths to chosen receivers alone.
    PathPatching,
    /// Directly: what each node adds to the logits itself, with the final norm's scale held.
    LogitAttribution,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::ActivationPatching => "activation-patching",
            Method::AttributionPatching => "attribution-patching",
            Method::IntegratedGradients => "integrated-gradients",
            Method::Ablation => "ablation",
            Method::PathPatching => "path-patching",
            Method::LogitAttribution => "logit-attribution",
        })
    }
}

/// The effects of all nodes of one kind, prompt by prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    /// The nodes.
    pub kind: NodeKind,
    /// `[prompt, layer, ..]`, then [`NodeKind::axes`]: `[prompt, layer, head]` for heads, `[prompt, layer, pos]` for the
    /// residual stream by position.
    pub values: ArrayD<f32>,
}

impl Effects {
    /// Mean over prompts, `[layer, ..]`.
    #[must_use]
    pub fn mean(&self) -> ArrayD<f32> {
        // In float64, so that the mean of many prompts is as exact as each.
        let sum = self.values.mapv(f64::from).sum_axis(Dimension(0));
        let prompts = self.values.shape()[0].max(1) as f64;
        sum.mapv(|total| (total / prompts) as f32)
    }

    /// The names of the axes of [`values`](Self::values).
    #[must_use]
    pub fn axis_names(&self) -> Vec<&'static str> {
        use rewire_hooks::Axis;
        let name = |axis| match axis {
            Axis::Head => "head",
            Axis::DMlp => "neuron",
            Axis::Query if self.kind.by == crate::By::Cell => "dest",
            Axis::Key => "src",
            _ => "pos",
        };
        ["prompt", "layer"].into_iter().chain(self.kind.axes().into_iter().map(name)).collect()
    }
}

/// The metric of the unpatched runs, per prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// On the clean prompts.
    pub clean: Vec<f32>,
    /// On the corrupted prompts.
    pub corrupted: Vec<f32>,
}

impl Baselines {
    /// Means over clean and over corrupted prompts.
    #[must_use]
    pub fn means(&self) -> [f64; 2] {
        [&self.clean, &self.corrupted].map(|v| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len().max(1) as f64)
    }
}

/// Effects, and all that is needed to read them.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How they were found.
    pub method: Method,
    /// Which run was patched.
    pub direction: Direction,
    /// Their unit.
    pub scale: Scale,
    /// The metric's name.
    pub metric: &'static str,
    /// The metric of the unpatched runs.
    pub baselines: Baselines,
    /// Of attribution patching, the prompts (counted from 0) on which the metric's gradient
    /// vanishes though the two runs differ: attribution says nothing about them.
    pub vanished: Vec<usize>,
    /// One a node kind, in the order asked for.
    pub effects: Vec<Effects>,
}

/// Puts the portions of a sweep together along the prompts, in the unit that `factor` makes; nodes
/// that were not chosen are NaN.
pub(crate) fn join(
    method: Method,
    kinds: &[NodeKind],
    portions: Vec<Vec<ArrayD<f32>>>,
    factor: f64,
) -> Result<Vec<Effects>, AnalysisError> {
    let mut by_kind: Vec<Vec<ArrayD<f32>>> = kinds.iter().map(|_| Vec::with_capacity(portions.len())).collect();
    for portion in portions {
        for (kind, values) in by_kind.iter_mut().zip(portion) {
            kind.push(values);
        }
    }
    let join = |(kind, parts): (&NodeKind, Vec<ArrayD<f32>>)| {
        let views: Vec<_> = parts.iter().map(|p| p.view()).collect();
        let values = concatenate(Dimension(0), &views).expect("portions that differ in their prompts alone");
        // A 0 has no sign.
        let effects = Effects { kind: *kind, values: values.mapv(|v| (f64::from(v) * factor) as f32 + 0.0) };
        match effects.values.iter().any(|v| v.is_infinite()) {
            true => {
                let chosen = effects.values.mapv(|v| if v.is_nan() { 0.0 } else { v });
                check_effects(&method.to_string(), *kind, 0, &chosen).map(|()| effects)
            }
            false => Ok(effects),
        }
    };
    kinds.iter().zip(by_kind).map(join).collect()
}
