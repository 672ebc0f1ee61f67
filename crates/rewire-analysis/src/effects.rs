//! The results of an analysis: effects of nodes, baselines, and the method.

use std::fmt;

use ndarray::{ArrayD, Axis as Dimension, Slice, Zip};
use rewire_hooks::Axis;
use rewire_tasks::PromptPairs;
use serde::{Deserialize, Serialize};

use crate::error::AnalysisError;
use crate::node::kind::{By, Node, NodeKind};
use crate::run::finite::check_effects;
use crate::run::question::{Direction, Scale};

/// Whether a result keeps one value per prompt or their mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Reduce {
    /// One value per prompt, on a leading axis.
    PerPrompt,
    /// The mean over prompts.
    Mean,
}

/// The method that found the effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Exact: one run of the model per replaced node.
    ActivationPatching,
    /// First order: `(source - base) . gradient`, with the gradient on the base run.
    AttributionPatching,
    /// Gradients integrated along a line of activations.
    IntegratedGradients,
    /// Exact: one run of the model per removed node.
    Ablation,
    /// Exact: the change along the paths from each node to chosen receivers alone.
    PathPatching,
    /// Direct: the contribution of each node to the logits, with the scale of the final norm held
    /// fixed.
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

/// The end of the prompts from which the positions of effects are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Align {
    /// Position 0 is the first token of each prompt.
    #[default]
    Start,
    /// Position 0 is END, the last token of each prompt, and position 1 is the token before it.
    End,
}

/// The effects of all nodes of one kind, or of a list of nodes, per prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    /// The node kind. For a list of nodes, the kind of the first.
    pub kind: NodeKind,
    /// `[prompt, layer, ..]`, followed by [`NodeKind::axes`]: `[prompt, layer, head]` for heads,
    /// `[prompt, layer, pos]` for the residual stream by position. For a list of nodes,
    /// `[prompt, node]`, followed by the axes of positions.
    pub values: ArrayD<f32>,
    /// Number of tokens in each prompt. A shorter prompt has no node at positions after its end,
    /// and the values there have no meaning.
    pub lengths: Vec<usize>,
    /// The nodes of a list, in the order of the axis `node`. Empty for all nodes of the kind.
    pub nodes: Vec<Node>,
    /// The end of the prompts from which positions are counted.
    pub align: Align,
}

impl Effects {
    /// Creates the effects of all nodes of a kind, with positions counted from the start of the
    /// prompts. [`values`](Self::values) and [`lengths`](Self::lengths) have the documented shapes.
    #[must_use]
    pub fn new(kind: NodeKind, values: ArrayD<f32>, lengths: Vec<usize>) -> Self {
        Self { kind, values, lengths, nodes: Vec::new(), align: Align::Start }
    }

    /// Returns the same effects with positions counted from END: index 0 is END, and index 1 is the
    /// position before it. Prompts of different lengths then share END, and means are over the
    /// prompts that are long enough. Effects without positions stay as they are.
    #[must_use]
    pub fn aligned_at_end(&self) -> Self {
        let axes: Vec<usize> = match self.align {
            Align::Start => (2..self.values.ndim()).filter(|&axis| is_of_positions(self.axis_names()[axis])).collect(),
            Align::End => Vec::new(),
        };
        let mut aligned = Self { align: Align::End, ..self.clone() };
        for (prompt, mut of_prompt) in aligned.values.outer_iter_mut().enumerate() {
            for axis in axes.iter().map(|axis| Dimension(axis - 1)) {
                let width = of_prompt.len_of(axis);
                let length = self.lengths.get(prompt).map_or(width, |&length| length.min(width));
                let mut of_tokens = of_prompt.slice_axis_mut(axis, Slice::from(..length));
                let mut reversed = of_tokens.to_owned();
                reversed.invert_axis(axis);
                of_tokens.assign(&reversed);
            }
        }
        aligned
    }

    /// Returns the mean over prompts, `[layer, ..]`. At a position, the mean is over the prompts
    /// that have it ([`prompts_by_position`](Self::prompts_by_position)).
    #[must_use]
    pub fn mean(&self) -> ArrayD<f32> {
        mean_over_prompts(&self.values, &self.lengths, self.position_axis())
    }

    /// Returns the number of prompts that have each position, `[pos]`; `None` for effects without
    /// an axis of positions.
    #[must_use]
    pub fn prompts_by_position(&self) -> Option<Vec<usize>> {
        let axis = self.position_axis()?;
        Some(prompts_by_position(&self.lengths, self.values.shape()[axis]))
    }

    /// Returns the axis of [`values`](Self::values) that runs over positions; for cells of
    /// attention patterns, over destinations.
    pub(crate) fn position_axis(&self) -> Option<usize> {
        self.axis_names().iter().position(|name| is_of_positions(name))
    }

    /// Returns the names of the axes of [`values`](Self::values): `prompt`, then `layer` or, for a
    /// list of nodes, `node`, then `head` or `neuron`, then `pos`, or `dest` and `src`. Positions
    /// that are counted from END are `pos_from_end`, `dest_from_end` and `src_from_end`.
    #[must_use]
    pub fn axis_names(&self) -> Vec<&'static str> {
        let from_end = self.align == Align::End;
        let name = |axis| match axis {
            Axis::Head => "head",
            Axis::DMlp => "neuron",
            Axis::Query if self.kind.by == By::Cell => ["dest", "dest_from_end"][usize::from(from_end)],
            Axis::Key => ["src", "src_from_end"][usize::from(from_end)],
            _ => ["pos", "pos_from_end"][usize::from(from_end)],
        };
        let (first, axes) = match self.nodes.is_empty() {
            true => ("layer", self.kind.axes()),
            false => {
                ("node", self.kind.axes().into_iter().filter(|axis| ![Axis::Head, Axis::DMlp].contains(axis)).collect())
            }
        };
        ["prompt", first].into_iter().chain(axes.into_iter().map(name)).collect()
    }
}

/// Returns whether an axis of effects runs over positions.
fn is_of_positions(name: &str) -> bool {
    ["pos", "dest", "src"].contains(&name.trim_end_matches("_from_end"))
}

/// The metric on the unpatched runs, per prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// On the clean prompts.
    pub clean: Vec<f32>,
    /// On the corrupted prompts.
    pub corrupted: Vec<f32>,
}

impl Baselines {
    /// Returns the means over clean and over corrupted prompts.
    #[must_use]
    pub fn means(&self) -> [f64; 2] {
        [&self.clean, &self.corrupted].map(|v| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len().max(1) as f64)
    }
}

/// Effects, and the method, direction, scale and baselines that they refer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The method that found the effects.
    pub method: Method,
    /// Which run was patched.
    pub direction: Direction,
    /// The effect scale.
    pub scale: Scale,
    /// The metric's name.
    pub metric: &'static str,
    /// The metric on the unpatched runs.
    pub baselines: Baselines,
    /// For attribution patching, the prompts (counted from 0) on which the metric's gradient
    /// vanishes although the two runs differ. Attribution gives no information about these prompts.
    pub vanished: Vec<usize>,
    /// One entry per node kind, in the order asked for.
    pub effects: Vec<Effects>,
}

impl Outcome {
    /// Returns the same outcome with positions counted from END
    /// ([`Effects::aligned_at_end`]).
    #[must_use]
    pub fn aligned_at_end(&self) -> Self {
        Self { effects: self.effects.iter().map(Effects::aligned_at_end).collect(), ..self.clone() }
    }
}

/// Returns the number of prompts that are longer than each position.
pub(crate) fn prompts_by_position(lengths: &[usize], width: usize) -> Vec<usize> {
    (0..width).map(|position| lengths.iter().filter(|length| **length > position).count()).collect()
}

/// Returns the mean of `values` `[prompt, ..]` over the prompts that have each position, or over
/// all prompts without an axis of positions. A position that no prompt has keeps 0.
pub(crate) fn mean_over_prompts(values: &ArrayD<f32>, lengths: &[usize], position: Option<usize>) -> ArrayD<f32> {
    // Summed in float64 to keep the mean of many prompts as exact as each value.
    let mut sum = ArrayD::<f64>::zeros(&values.shape()[1..]);
    let Some(axis) = position else {
        values.outer_iter().for_each(|prompt| sum.zip_mut_with(&prompt, |sum, v| *sum += f64::from(*v)));
        return sum.mapv(|total| (total / values.shape()[0].max(1) as f64) as f32);
    };
    let axis = Dimension(axis - 1);
    for (prompt, &length) in values.outer_iter().zip(lengths) {
        for (mut sum, values) in sum.axis_iter_mut(axis).zip(prompt.axis_iter(axis)).take(length) {
            sum.zip_mut_with(&values, |sum, v| *sum += f64::from(*v));
        }
    }
    for (mut sum, prompts) in sum.axis_iter_mut(axis).zip(prompts_by_position(lengths, values.shape()[axis.0 + 1])) {
        sum /= prompts.max(1) as f64;
    }
    sum.mapv(|mean| mean as f32)
}

/// Concatenates the batches of a sweep over `pairs` along the prompts and multiplies the changes of
/// the metric by `factor`, which gives the effect scale. Nodes that were not selected are NaN.
pub(crate) fn join(
    method: Method,
    kinds: &[NodeKind],
    batches: Vec<Vec<ArrayD<f32>>>,
    factor: f64,
    pairs: &PromptPairs,
) -> Result<Vec<Effects>, AnalysisError> {
    let mut by_kind: Vec<Vec<ArrayD<f32>>> = kinds.iter().map(|_| Vec::with_capacity(batches.len())).collect();
    for batch in batches {
        for (kind, values) in by_kind.iter_mut().zip(batch) {
            kind.push(values);
        }
    }
    let join = |(kind, parts): (&NodeKind, Vec<ArrayD<f32>>)| {
        let effects = Effects::new(*kind, concatenated(parts, factor), pairs.lengths());
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

/// Returns the values of batches of prompts, in the order of the prompts, times `factor`.
pub(crate) fn concatenated(parts: Vec<ArrayD<f32>>, factor: f64) -> ArrayD<f32> {
    let mut shape = parts.first().map_or_else(|| vec![0], |part| part.shape().to_vec());
    shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
    let mut values = ArrayD::zeros(shape);
    let mut first = 0;
    // Each part is dropped once it is copied: for many prompts, effects are large.
    for part in parts {
        let prompts = Slice::from(first..first + part.shape()[0]);
        first += part.shape()[0];
        // Adding 0 turns -0 into 0.
        let of_prompts = values.slice_axis_mut(Dimension(0), prompts);
        Zip::from(of_prompts).and(&part).for_each(|value, &v| *value = (f64::from(v) * factor) as f32 + 0.0);
    }
    values
}

#[cfg(test)]
mod tests {
    use ndarray::{IxDyn, array};

    use super::*;
    use crate::node::kind::Component;

    #[test]
    fn mean_at_a_position_skips_prompts_that_end_before_it() {
        let kind = NodeKind { component: Component::ResidPre, by: By::Position };
        // Two prompts of three and two tokens, one layer. The value after the end of the shorter
        // prompt is not an effect.
        let values = array![[[1.0, 2.0, 8.0]], [[3.0, 6.0, 5.0]]].into_dyn();
        let effects = Effects::new(kind, values, vec![3, 2]);
        assert_eq!(effects.mean(), array![[2.0, 4.0, 8.0]].into_dyn());
        assert_eq!(effects.prompts_by_position(), Some(vec![2, 2, 1]));
    }

    #[test]
    fn mean_of_a_cell_skips_prompts_that_end_before_its_destination() {
        let kind = NodeKind { component: Component::HeadPattern, by: By::Cell };
        let mut values = ArrayD::zeros(IxDyn(&[2, 1, 1, 2, 2]));
        values[[0, 0, 0, 1, 0]] = 4.0;
        values[[0, 0, 0, 0, 0]] = 4.0;
        let effects = Effects::new(kind, values, vec![2, 1]);
        assert_eq!(effects.mean()[[0, 0, 1, 0]], 4.0);
        assert_eq!(effects.mean()[[0, 0, 0, 0]], 2.0);
    }

    #[test]
    fn mean_without_positions_uses_all_prompts() {
        let values = array![[[1.0, 2.0]], [[3.0, 6.0]]].into_dyn();
        let effects = Effects::new(NodeKind::all(Component::HeadZ), values, vec![3, 2]);
        assert_eq!(effects.mean(), array![[2.0, 4.0]].into_dyn());
        assert_eq!(effects.prompts_by_position(), None);
    }
    #[test]
    fn positions_from_the_end_share_end_and_keep_their_values() {
        let kind = NodeKind { component: Component::ResidPre, by: By::Position };
        let values = array![[[1.0, 2.0, 8.0]], [[3.0, 6.0, 5.0]]].into_dyn();
        let effects = Effects::new(kind, values, vec![3, 2]).aligned_at_end();
        // The 5 after the end of the shorter prompt is not an effect.
        assert_eq!(effects.values, array![[[8.0, 2.0, 1.0]], [[6.0, 3.0, 5.0]]].into_dyn());
        assert_eq!(effects.mean(), array![[7.0, 2.5, 1.0]].into_dyn());
        assert_eq!(effects.prompts_by_position(), Some(vec![2, 2, 1]));
        assert_eq!(effects.axis_names(), ["prompt", "layer", "pos_from_end"]);
        assert_eq!(effects.aligned_at_end(), effects);
    }

    #[test]
    fn cells_from_the_end_turn_both_axes() {
        let kind = NodeKind { component: Component::HeadPattern, by: By::Cell };
        let mut values = ArrayD::zeros(IxDyn(&[1, 1, 1, 3, 3]));
        values[[0, 0, 0, 2, 1]] = 4.0;
        let effects = Effects::new(kind, values, vec![3]).aligned_at_end();
        assert_eq!(effects.values[[0, 0, 0, 0, 1]], 4.0);
        assert_eq!(effects.axis_names()[3..], ["dest_from_end", "src_from_end"]);
        assert_eq!(effects.top(1)[0].to_string(), "L0H0@END<-END-1 4.0000");
    }

    #[test]
    fn effects_without_positions_are_the_same_from_both_ends() {
        let effects = Effects::new(NodeKind::all(Component::HeadZ), array![[[1.0, 2.0]]].into_dyn(), vec![3]);
        assert_eq!(effects.aligned_at_end().values, effects.values);
    }
}
