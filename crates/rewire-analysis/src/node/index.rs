//! Index arithmetic: the index of a node in the effects of its kind, and the number of nodes.

use crate::node::kind::{By, Node, NodeKind, Positions};
use ndarray::ArrayD;
use ndarray::IxDyn;
use rewire_model::TransformerConfig;
use rewire_tasks::PromptPairs;
/// Identifies a node in a sweep: its kind, and its index along the axes of that kind, layer first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex {
    /// Index of the kind among the kinds of the sweep.
    pub kind: usize,
    /// Index along the axes of the kind, layer first.
    pub index: Vec<usize>,
}

/// Returns the index of a node in the effects of its kind, prompt first.
pub(crate) fn effect_index(prompt: usize, layer: usize, unit: Option<usize>, positions: &Positions) -> Vec<usize> {
    let place = match positions {
        Positions::All | Positions::Each(_) => vec![],
        Positions::One(position) => vec![*position],
        Positions::Cell { dest, src } => vec![*dest, *src],
    };
    [prompt, layer].into_iter().chain(unit).chain(place).collect()
}

/// Returns the number of heads, key/value heads or neurons into which a layer is divided; 1 for a
/// component that is not divided.
pub(crate) fn units(kind: NodeKind, config: &TransformerConfig) -> usize {
    match kind.unit_axis() {
        Some(rewire_hooks::Axis::Head) => config.heads_at(kind.site()),
        Some(_) => config.d_mlp,
        None => 1,
    }
}

/// Returns the positions into which the nodes of a kind are divided.
pub(crate) fn positions_of(kind: NodeKind, pairs: &PromptPairs) -> Vec<Positions> {
    let width = pairs.width();
    match kind.by {
        By::All => vec![Positions::All],
        By::Position => (0..width).map(Positions::One).collect(),
        By::Cell => (0..width).flat_map(|dest| (0..=dest).map(move |src| Positions::Cell { dest, src })).collect(),
        By::Marked => pairs.marked_positions().map(|marks| Positions::Each(marks.to_vec())).into_iter().collect(),
    }
}

/// Returns the number of nodes of a kind in a layer, along each of [`NodeKind::axes`].
pub(crate) fn node_sizes(kind: NodeKind, config: &TransformerConfig, width: usize) -> Vec<usize> {
    use rewire_hooks::Axis;
    let size = |axis| match axis {
        Axis::Head => config.heads_at(kind.site()),
        Axis::DMlp => config.d_mlp,
        _ => width,
    };
    kind.axes().into_iter().map(size).collect()
}

/// Returns zeros for the effects of a kind on `n_prompts` prompts of `width` positions,
/// `[prompt, layer, ..]`.
pub(crate) fn no_effects(kind: NodeKind, config: &TransformerConfig, n_prompts: usize, width: usize) -> ArrayD<f32> {
    let mut shape = vec![n_prompts, config.n_layers];
    shape.extend(node_sizes(kind, config, width));
    ArrayD::zeros(IxDyn(&shape))
}

/// Returns the number of nodes of a kind in all layers.
pub(crate) fn count(kind: NodeKind, config: &TransformerConfig, width: usize) -> usize {
    let in_layer: usize = node_sizes(kind, config, width).iter().product();
    match kind.by {
        // Only the cells on and below the diagonal of an attention pattern are nodes.
        By::Cell => config.n_layers * config.n_heads * (width * (width + 1) / 2),
        _ => config.n_layers * in_layer,
    }
}

/// Returns the node at `index` along the axes of the effects of its kind, layer first.
pub(crate) fn node_at(kind: NodeKind, index: &[usize]) -> Node {
    let (layer, rest) = index.split_first().map_or((0, index), |(layer, rest)| (*layer, rest));
    let (unit, places) = match (kind.unit_axis(), rest.split_first()) {
        (Some(_), Some((unit, places))) => (Some(*unit), places),
        _ => (None, rest),
    };
    Node { layer, component: kind.component, unit, positions: positions_at(kind, places) }
}

/// Returns the positions at an index along the axes of positions of a kind. Marked positions come
/// without the positions themselves.
pub(crate) fn positions_at(kind: NodeKind, places: &[usize]) -> Positions {
    match (kind.by, places) {
        (By::Marked, _) => Positions::Each(Vec::new()),
        (_, &[dest, src]) => Positions::Cell { dest, src },
        (_, &[position]) => Positions::One(position),
        _ => Positions::All,
    }
}
