//! A list of single nodes, for sweeps that ask about a few nodes instead of all nodes of a kind.

use ndarray::{ArrayD, IxDyn};
use rewire_tasks::PromptPairs;

use crate::effects::{Effects, Method, Outcome};
use crate::node::index::positions_of;
use crate::node::kind::{By, Node, NodeKind, Positions};
use crate::patching::groups::GroupOutcome;

/// A list of nodes, each of which is a group of its own.
///
/// [`groups`](Self::groups) are for [`patch_groups`](crate::patching::patch_groups),
/// [`attribute_groups`](crate::attribution::attribute_groups),
/// [`ablate_groups`](crate::patching::ablate_groups) and
/// [`path_patch_groups`](crate::path::path_patch_groups). [`outcome`](Self::outcome) turns their
/// result into [`Effects`] with an axis of nodes.
///
/// ```
/// use rewire_analysis::node::{By, Node};
/// use rewire_analysis::patching::NodeList;
/// use rewire_tasks::{PromptPair, PromptPairs};
///
/// let (clean, corrupted) = (vec![1, 2], vec![1, 3]);
/// let pair = PromptPair { clean, corrupted, answers: vec![2], wrong_answers: vec![3] };
/// let pairs = PromptPairs::new(vec![pair]).unwrap();
/// let nodes: Vec<Node> = ["head_z:L0H0", "mlp_out:L3"].map(|name| name.parse().unwrap()).into();
/// assert_eq!(NodeList::new(nodes.clone()).groups(&pairs).len(), 2);
/// let each_position = NodeList::divided(nodes, By::Position).groups(&pairs);
/// assert_eq!(each_position[3][0].to_string(), "mlp_out:L3@1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeList {
    nodes: Vec<Node>,
    by: By,
}

impl NodeList {
    /// Creates a list of nodes at their own positions.
    #[must_use]
    pub fn new(nodes: Vec<Node>) -> Self {
        Self { nodes, by: By::All }
    }

    /// Creates a list of nodes that are divided in this way, whatever their own positions are. With
    /// [`By::All`], nodes keep their positions.
    #[must_use]
    pub fn divided(nodes: Vec<Node>, by: By) -> Self {
        Self { nodes, by }
    }

    /// Returns the nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the groups: one for each node, or one for each part of a divided node.
    #[must_use]
    pub fn groups(&self, pairs: &PromptPairs) -> Vec<Vec<Node>> {
        let part = |(node, positions): (usize, Positions)| vec![self.nodes[node].clone().at(positions)];
        self.parts(pairs).into_iter().map(part).collect()
    }

    /// Returns the effects of the groups as the outcome of a method, with the axes `[prompt, node]`
    /// and, for divided nodes, those of positions.
    ///
    /// # Panics
    /// If `found` is not the result for [`groups`](Self::groups) on the same pairs.
    #[must_use]
    pub fn outcome(&self, method: Method, found: GroupOutcome, pairs: &PromptPairs) -> Outcome {
        let parts = self.parts(pairs);
        assert_eq!(found.values.dim(), (pairs.len(), parts.len()), "the groups are not those of this list");
        let positions = match self.by {
            By::All | By::Marked => 0,
            By::Position => 1,
            By::Cell => 2,
        };
        let mut shape = vec![pairs.len(), self.nodes.len()];
        shape.extend(vec![pairs.width(); positions]);
        let mut values = ArrayD::zeros(IxDyn(&shape));
        for ((prompt, group), &effect) in found.values.indexed_iter() {
            let (node, at) = &parts[group];
            let mut index = vec![prompt, *node];
            match (self.by, at) {
                (By::Position, Positions::One(position)) => index.push(*position),
                (By::Cell, Positions::Cell { dest, src }) => index.extend([*dest, *src]),
                _ => {}
            }
            values[index.as_slice()] = effect;
        }
        let component = self.nodes.first().map(|node| node.component);
        let kind = component.map(|component| NodeKind { component, by: self.by });
        let effects =
            kind.map(|kind| Effects { nodes: self.nodes.clone(), ..Effects::new(kind, values, pairs.lengths()) });
        let GroupOutcome { direction, scale, metric, baselines, vanished, .. } = found;
        Outcome { method, direction, scale, metric, baselines, vanished, effects: effects.into_iter().collect() }
    }

    /// Returns each part: the index of its node, and its positions.
    fn parts(&self, pairs: &PromptPairs) -> Vec<(usize, Positions)> {
        let of_node = |(number, node): (usize, &Node)| {
            let positions = match self.by {
                By::All => vec![node.positions.clone()],
                by => positions_of(NodeKind { component: node.component, by }, pairs),
            };
            positions.into_iter().map(move |positions| (number, positions)).collect::<Vec<_>>()
        };
        self.nodes.iter().enumerate().flat_map(of_node).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rewire_tasks::PromptPair;

    use super::*;
    use crate::effects::Baselines;
    use crate::node::kind::Component;
    use crate::run::question::{Direction, Scale};

    fn pairs() -> PromptPairs {
        let pair = |clean: &[u32]| PromptPair {
            clean: clean.to_vec(),
            corrupted: clean.iter().map(|token| token + 1).collect(),
            answers: vec![1],
            wrong_answers: vec![2],
        };
        PromptPairs::new(vec![pair(&[1, 2, 3]), pair(&[1, 2])]).unwrap()
    }

    fn outcome(list: &NodeList, values: ndarray::Array2<f32>) -> Outcome {
        let baselines = Baselines { clean: vec![1.0; 2], corrupted: vec![0.0; 2] };
        let (direction, scale) = (Direction::Denoising, Scale::Metric);
        let found = GroupOutcome { direction, scale, metric: "m", baselines, vanished: Vec::new(), values };
        list.outcome(Method::ActivationPatching, found, &pairs())
    }

    #[test]
    fn a_list_has_an_axis_of_nodes_in_its_order() {
        let nodes = vec![Node::new(3, Component::MlpOut), Node::new(0, Component::HeadZ).unit(1)];
        let list = NodeList::new(nodes.clone());
        let found = outcome(&list, array![[1.0, -2.0], [3.0, -4.0]]);
        let effects = &found.effects[0];
        assert_eq!((effects.axis_names(), &effects.nodes), (vec!["prompt", "node"], &nodes));
        assert_eq!(effects.mean(), array![2.0, -3.0].into_dyn());
        let ranked: Vec<String> = found.ranked().iter().map(ToString::to_string).collect();
        assert_eq!(ranked, ["L0H1 -3.0000", "mlp_out:L3 2.0000"]);
    }

    #[test]
    fn means_at_a_position_skip_shorter_prompts() {
        let list = NodeList::divided(vec![Node::new(3, Component::MlpOut)], By::Position);
        let effects = &outcome(&list, array![[1.0, 2.0, 3.0], [3.0, 4.0, 9.0]]).effects[0];
        assert_eq!(effects.axis_names(), ["prompt", "node", "pos"]);
        assert_eq!(effects.mean(), array![[2.0, 3.0, 3.0]].into_dyn());
        assert_eq!(effects.aligned_at_end().mean(), array![[3.5, 2.5, 1.0]].into_dyn());
        assert_eq!(effects.aligned_at_end().top(1)[0].to_string(), "mlp_out:L3@END 3.5000");
    }

    #[test]
    fn cells_are_placed_by_destination_and_source() {
        let list = NodeList::divided(vec![Node::new(0, Component::HeadPattern).unit(0)], By::Cell);
        let values = ndarray::Array2::from_shape_fn((2, 6), |(_, cell)| cell as f32);
        let effects = &outcome(&list, values).effects[0];
        assert_eq!(effects.values.shape(), [2, 1, 3, 3]);
        // Cells in order: 0<-0, 1<-0, 1<-1, 2<-0, 2<-1, 2<-2.
        assert_eq!(effects.values[[0, 0, 2, 1]], 4.0);
        assert_eq!(effects.values[[0, 0, 1, 2]], 0.0);
    }
}
