//! The results of lines, and their places among the effects.

use ndarray::{ArrayD, ArrayViewMutD, Axis as Dimension, IxDyn};
use rewire_model::TransformerConfig;

use crate::node::index::no_effects;
use crate::node::kind::{By, NodeKind};
use crate::run::batch::PromptBatch;
use crate::run::moves::clear;

/// A line to integrate along.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) kind: usize,
    pub(crate) layer: usize,
    pub(crate) unit: Option<usize>,
}

/// The result of one line.
pub(crate) struct OfLine {
    /// Prompt by prompt, in the order of the kind's effects.
    pub(crate) attributions: Vec<f32>,
    /// One value per prompt.
    pub(crate) gap: Vec<f32>,
    pub(crate) change: Vec<f32>,
    /// Largest absolute gap that the tolerance allows.
    pub(crate) allowed: Vec<f32>,
    pub(crate) steps: usize,
}

impl OfLine {
    /// Returns the prompts of the batch whose gap is larger than the tolerance allows.
    pub(crate) fn missed(&self) -> Vec<usize> {
        (0..self.gap.len()).filter(|&prompt| self.gap[prompt].abs() > self.allowed[prompt]).collect()
    }
}

/// The results of all lines of one batch of prompts, with one array per kind.
pub(crate) struct Found {
    pub(crate) attributions: Vec<ArrayD<f32>>,
    pub(crate) gap: Vec<ArrayD<f32>>,
    pub(crate) change: Vec<ArrayD<f32>>,
    pub(crate) allowed: Vec<ArrayD<f32>>,
}

impl Found {
    pub(crate) fn new(
        nodes: &[NodeKind],
        scope: LineScope,
        config: &TransformerConfig,
        batch: &PromptBatch,
        width: usize,
    ) -> Self {
        let n_prompts = batch.prompts.len();
        let lines = |kind: &NodeKind| match scope {
            LineScope::Layer => ArrayD::zeros(IxDyn(&[n_prompts, config.n_layers])),
            LineScope::Node => no_effects(NodeKind { by: By::All, ..*kind }, config, n_prompts, width),
        };
        Self {
            attributions: nodes.iter().map(|kind| no_effects(*kind, config, n_prompts, width)).collect(),
            gap: nodes.iter().map(lines).collect(),
            change: nodes.iter().map(lines).collect(),
            allowed: nodes.iter().map(lines).collect(),
        }
    }

    /// Sets the attributions of nodes that cannot affect the metric to exactly 0.
    pub(crate) fn clear(&mut self, nodes: &[NodeKind], config: &TransformerConfig, batch: &PromptBatch) {
        for (kind, attributions) in nodes.iter().zip(&mut self.attributions) {
            for layer in 0..config.n_layers {
                clear(*kind, layer, batch, config, attributions.index_axis_mut(Dimension(1), layer));
            }
        }
    }

    pub(crate) fn write(&mut self, Work { kind, layer, unit }: Work, of_line: &OfLine) {
        fn put(mut into: ArrayViewMutD<'_, f32>, layer: usize, unit: Option<usize>, values: &[f32]) {
            into.collapse_axis(Dimension(1), layer);
            if let Some(unit) = unit {
                into.collapse_axis(Dimension(2), unit);
            }
            into.iter_mut().zip(values).for_each(|(into, value)| *into = *value);
        }
        put(self.attributions[kind].view_mut(), layer, unit, &of_line.attributions);
        put(self.gap[kind].view_mut(), layer, unit, &of_line.gap);
        put(self.change[kind].view_mut(), layer, unit, &of_line.change);
        put(self.allowed[kind].view_mut(), layer, unit, &of_line.allowed);
    }
}

/// Which activations of a layer move along one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum LineScope {
    /// All heads, or all neurons, of a layer: their attributions sum to the change of the metric
    /// when all are replaced.
    Layer,
    /// One head, or one neuron: its attributions over positions sum to its own exact effect. Each
    /// node needs its own line; for the neurons of a large model that is slower than patching them.
    Node,
}
