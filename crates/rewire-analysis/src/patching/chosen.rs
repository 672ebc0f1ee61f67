//! Nodes chosen from all nodes of a sweep: their places, and effects that are known only there.

use ndarray::{ArrayD, ArrayViewD, Axis};
use rewire_model::TransformerConfig;
use rewire_tasks::PromptPairs;

use crate::effects::Effects;
use crate::node::index::{NodeIndex, no_effects, node_at};
use crate::node::kind::{Node, NodeKind, Positions};

/// A node and its place among the nodes of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedNode {
    /// The place.
    pub place: NodeIndex,
    /// The node, at its positions in the prompts of the sweep.
    pub node: Node,
}

/// Returns every node of these kinds, in the order of their effects.
#[must_use]
pub fn placed_nodes(kinds: &[NodeKind], config: &TransformerConfig, pairs: &PromptPairs) -> Vec<PlacedNode> {
    let of_kind = |(number, kind): (usize, &NodeKind)| {
        let empty = no_effects(*kind, config, 1, pairs.width());
        let places = empty.indexed_iter().map(|(place, _)| ndarray::Dimension::slice(&place)[1..].to_vec());
        let node = |index: Vec<usize>| {
            let mut node = node_at(*kind, &index);
            if let (Positions::Each(at), Some(marks)) = (&mut node.positions, pairs.marked_positions()) {
                *at = marks.to_vec();
            }
            PlacedNode { place: NodeIndex { kind: number, index }, node }
        };
        places.filter(|index| kind.has(index)).map(node).collect::<Vec<_>>()
    };
    kinds.iter().enumerate().flat_map(of_kind).collect()
}

/// Returns effects of all nodes of these kinds that are known at `nodes` only, and NaN elsewhere.
/// `values` are the known effects, `[prompt, node]`.
///
/// # Panics
/// If `values` has other prompts or fewer nodes.
#[must_use]
pub fn placed_effects(
    kinds: &[NodeKind],
    config: &TransformerConfig,
    pairs: &PromptPairs,
    nodes: &[PlacedNode],
    values: &ArrayViewD<f32>,
) -> Vec<Effects> {
    let unknown = |kind: &NodeKind| no_effects(*kind, config, pairs.len(), pairs.width()).mapv(|_| f32::NAN);
    let mut placed: Vec<ArrayD<f32>> = kinds.iter().map(unknown).collect();
    for (number, PlacedNode { place, .. }) in nodes.iter().enumerate() {
        for (prompt, value) in values.index_axis(Axis(1), number).iter().enumerate() {
            let index: Vec<usize> = [prompt].into_iter().chain(place.index.iter().copied()).collect();
            placed[place.kind][index.as_slice()] = *value;
        }
    }
    kinds.iter().zip(placed).map(|(kind, values)| Effects::new(*kind, values, pairs.lengths())).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rewire_tasks::PromptPair;

    use super::*;
    use crate::node::kind::{By, Component};

    #[test]
    fn effects_are_known_at_the_chosen_nodes_only() {
        let pair = PromptPair { clean: vec![1, 2], corrupted: vec![1, 3], answers: vec![1], wrong_answers: vec![2] };
        let pairs = PromptPairs::new(vec![pair.clone(), pair]).unwrap();
        let config = TransformerConfig::gpt2(2, 3, 6, 10, 4);
        let kinds = [
            NodeKind { component: Component::HeadPattern, by: By::Cell },
            NodeKind { component: Component::ResidPre, by: By::Position },
        ];
        let nodes = placed_nodes(&kinds, &config, &pairs);
        // Three of the four entries of a pattern are nodes.
        assert_eq!(nodes.len(), 2 * 3 * 3 + 2 * 2);
        let chosen: Vec<PlacedNode> = nodes
            .into_iter()
            .filter(|n| ["head_pattern:L1H2@1<-0", "resid_pre:L0@1"].contains(&n.node.to_string().as_str()))
            .collect();
        assert_eq!(chosen.len(), 2);
        let effects =
            placed_effects(&kinds, &config, &pairs, &chosen, &array![[1.0, 2.0], [3.0, 4.0]].into_dyn().view());
        assert_eq!(effects[0].mean()[[1, 2, 1, 0]], 2.0);
        assert_eq!(effects[1].values[[1, 0, 1]], 4.0);
        let known = |effects: &Effects| effects.values.iter().filter(|value| !value.is_nan()).count();
        assert_eq!([known(&effects[0]), known(&effects[1])], [2, 2]);
    }
}
