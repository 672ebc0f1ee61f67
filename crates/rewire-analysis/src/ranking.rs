//! Effects ranked by size, with the names of their nodes.

use std::fmt;

use ndarray::{Array2, Dimension};

use crate::effects::{Effects, Outcome};
use crate::node::index::node_at;
use crate::node::kind::Node;

/// A node with its mean effect.
#[derive(Debug, Clone, PartialEq)]
pub struct RankedNode {
    /// The node. A node at marked positions comes without the positions themselves.
    pub node: Node,
    /// Its index along the axes of [`Effects::mean`], layer first.
    pub index: Vec<usize>,
    /// Its mean effect over prompts, on the effect scale of the outcome.
    pub effect: f32,
}

/// Formats the name and the mean effect: `L9H6 0.4312`, `L3 mlp_out @ 14 -0.0712`.
impl fmt::Display for RankedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.4}", self.node.short_name(), self.effect)
    }
}

impl Effects {
    /// Returns every node with its mean effect, ranked by absolute value, the largest first. Nodes
    /// of equal size keep their order. Nodes whose effect is unknown (NaN) are left out.
    #[must_use]
    pub fn ranked(&self) -> Vec<RankedNode> {
        let mean = self.mean();
        let indices = mean.indexed_iter().map(|(index, &effect)| (index.slice().to_vec(), effect));
        let known = indices.filter(|(index, effect)| !effect.is_nan() && self.kind.has(index));
        let mut nodes: Vec<RankedNode> =
            known.map(|(index, effect)| RankedNode { node: node_at(self.kind, &index), index, effect }).collect();
        nodes.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        nodes
    }

    /// Returns the `n` nodes of largest absolute mean effect, the largest first.
    #[must_use]
    pub fn top(&self, n: usize) -> Vec<RankedNode> {
        let mut nodes = self.ranked();
        nodes.truncate(n);
        nodes
    }

    /// Returns the mean effects as a matrix: `[layer, head]`, `[layer, pos]` or `[layer, neuron]`,
    /// and `[layer, 1]` for one node per layer. `None` for effects with more axes.
    #[must_use]
    pub fn to_array2(&self) -> Option<Array2<f32>> {
        let mean = self.mean();
        let shape = match *mean.shape() {
            [layers] => [layers, 1],
            [layers, nodes] => [layers, nodes],
            _ => return None,
        };
        mean.into_shape_with_order(shape).ok()
    }
}

impl Outcome {
    /// Returns the nodes of all kinds with their mean effects, ranked by absolute value, the
    /// largest first.
    #[must_use]
    pub fn ranked(&self) -> Vec<RankedNode> {
        let mut nodes: Vec<RankedNode> = self.effects.iter().flat_map(Effects::ranked).collect();
        nodes.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        nodes
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::node::kind::{By, Component, NodeKind};

    fn heads() -> Effects {
        let values = array![[[0.5, -2.0], [f32::NAN, 1.0]], [[0.5, -1.0], [f32::NAN, 1.0]]].into_dyn();
        Effects { kind: NodeKind::all(Component::HeadZ), values, lengths: vec![3, 3] }
    }

    #[test]
    fn ranking_sorts_by_absolute_effect_and_omits_nan() {
        let names: Vec<String> = heads().ranked().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["L0H1 -1.5000", "L1H1 1.0000", "L0H0 0.5000"]);
        assert_eq!(heads().top(1)[0].index, [0, 1]);
    }

    #[test]
    fn effect_matrices_have_layers_as_rows() {
        assert_eq!(heads().to_array2().unwrap()[[0, 1]], -1.5);
        let layers =
            Effects { kind: NodeKind::all(Component::MlpOut), values: array![[1.0, 2.0]].into_dyn(), lengths: vec![3] };
        assert_eq!(layers.to_array2().unwrap(), array![[1.0], [2.0]]);
        let kind = NodeKind { component: Component::HeadZ, by: By::Position };
        assert_eq!(Effects { kind, values: array![[[[1.0]]]].into_dyn(), lengths: vec![1] }.to_array2(), None);
    }
}
