//! Effects ranked by size, with the names of their nodes.

use std::fmt;

use ndarray::{Array2, Dimension};

use crate::effects::{Align, Effects, Outcome};
use crate::node::index::{node_at, positions_at};
use crate::node::kind::{By, Node, Positions};

/// A node with its mean effect.
#[derive(Debug, Clone, PartialEq)]
pub struct RankedNode {
    /// The node. A node at positions that differ between prompts (marked positions, and positions
    /// counted from END) comes without its positions.
    pub node: Node,
    /// Its index along the axes of [`Effects::mean`].
    pub index: Vec<usize>,
    /// Its mean effect over prompts, on the effect scale of the outcome.
    pub effect: f32,
    /// The suffix of its name, for positions counted from END.
    from_end: String,
}

/// Formats the name and the mean effect: `L9H6 0.4312`, `mlp_out:L3@14 -0.0712`.
impl fmt::Display for RankedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {:.4}", self.node.short_name(), self.from_end, self.effect)
    }
}

impl Align {
    /// Returns the name of a position: `14` from the start, `END` or `END-3` from the end.
    #[must_use]
    pub fn position_name(self, position: usize) -> String {
        match (self, position) {
            (Align::Start, position) => position.to_string(),
            (Align::End, 0) => "END".to_owned(),
            (Align::End, position) => format!("END-{position}"),
        }
    }
}

impl Effects {
    /// Returns every node with its mean effect, ranked by absolute value, the largest first. Nodes
    /// of equal size keep their order. Nodes whose effect is unknown (NaN) are left out.
    #[must_use]
    pub fn ranked(&self) -> Vec<RankedNode> {
        let mean = self.mean();
        let indices = mean.indexed_iter().map(|(index, &effect)| (index.slice().to_vec(), effect));
        let known = indices.filter(|(index, effect)| !effect.is_nan() && self.has(index));
        let mut nodes: Vec<RankedNode> = known.map(|(index, effect)| self.ranked_node(index, effect)).collect();
        nodes.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        nodes
    }

    /// Returns whether there is a node at `index`. In an attention pattern, no position attends to
    /// a later one.
    fn has(&self, index: &[usize]) -> bool {
        match (self.align, index) {
            (Align::End, [.., dest, src]) if self.kind.by == By::Cell => dest <= src,
            _ => self.kind.has(index),
        }
    }

    /// Returns the node at `index`, with its effect.
    fn ranked_node(&self, index: Vec<usize>, effect: f32) -> RankedNode {
        let listed = index.split_first().and_then(|(first, places)| Some((self.nodes.get(*first)?, places)));
        let mut node = match listed {
            Some((node, [])) => node.clone(),
            Some((node, places)) => node.clone().at(positions_at(self.kind, places)),
            None => node_at(self.kind, &index),
        };
        let mut from_end = String::new();
        if self.align == Align::End {
            let name = |position| self.align.position_name(position);
            from_end = match node.positions {
                Positions::One(position) => format!("@{}", name(position)),
                Positions::Cell { dest, src } => format!("@{}<-{}", name(dest), name(src)),
                Positions::All | Positions::Each(_) => String::new(),
            };
            node = node.at(Positions::All);
        }
        RankedNode { node, index, effect, from_end }
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
    use crate::node::kind::{Component, NodeKind};

    fn heads() -> Effects {
        let values = array![[[0.5, -2.0], [f32::NAN, 1.0]], [[0.5, -1.0], [f32::NAN, 1.0]]].into_dyn();
        Effects::new(NodeKind::all(Component::HeadZ), values, vec![3, 3])
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
        let layers = Effects::new(NodeKind::all(Component::MlpOut), array![[1.0, 2.0]].into_dyn(), vec![3]);
        assert_eq!(layers.to_array2().unwrap(), array![[1.0], [2.0]]);
        let kind = NodeKind { component: Component::HeadZ, by: By::Position };
        assert_eq!(Effects::new(kind, array![[[[1.0]]]].into_dyn(), vec![1]).to_array2(), None);
    }
}
