//! Sets of edges: circuits, and what pruning leaves of them.

use crate::edges::graph::{Edge, EdgeGraph, Reader};
use crate::error::AnalysisError;

/// A set of edges of one graph, such as a circuit.
///
/// ```
/// use rewire_analysis::edges::{EdgeGraph, EdgeSet};
/// use rewire_model::TransformerConfig;
///
/// let graph = EdgeGraph::new(&TransformerConfig::gpt2(2, 2, 8, 11, 6));
/// let names = ["input->m0", "m0->logits", "input->a0.h0<q>"].map(|name| name.parse().unwrap());
/// let circuit = EdgeSet::of(graph, &names).unwrap();
/// assert_eq!(circuit.len(), 3);
/// // Nothing reads the head: it is no part of a path from the input to the logits.
/// assert_eq!(circuit.pruned().len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeSet {
    graph: EdgeGraph,
    /// By writer and reader, `[writer * n_readers + reader]`.
    contains: Vec<bool>,
}

impl EdgeSet {
    /// Returns the set without edges.
    #[must_use]
    pub fn empty(graph: EdgeGraph) -> Self {
        Self { graph, contains: vec![false; graph.n_writers() * graph.n_readers()] }
    }

    /// Returns the set of all edges.
    #[must_use]
    pub fn all(graph: EdgeGraph) -> Self {
        let mut set = Self::empty(graph);
        graph.places().for_each(|place| set.set(place, true));
        set
    }

    /// Returns the set of these edges.
    ///
    /// # Errors
    /// [`AnalysisError::NoSuchEdge`] for an edge that the graph lacks.
    pub fn of(graph: EdgeGraph, edges: &[Edge]) -> Result<Self, AnalysisError> {
        let mut set = Self::empty(graph);
        for edge in edges {
            set.set(graph.place(edge)?, true);
        }
        Ok(set)
    }

    /// Returns the graph.
    #[must_use]
    pub fn graph(&self) -> &EdgeGraph {
        &self.graph
    }

    /// Returns whether the edge at a place `[writer, reader]` is in the set.
    #[must_use]
    pub fn contains(&self, [writer, reader]: [usize; 2]) -> bool {
        self.contains[writer * self.graph.n_readers() + reader]
    }

    /// Adds the edge at a place `[writer, reader]` of the graph, or removes it.
    pub fn set(&mut self, [writer, reader]: [usize; 2], is_member: bool) {
        self.contains[writer * self.graph.n_readers() + reader] = is_member;
    }

    /// Returns the number of edges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.contains.iter().filter(|contains| **contains).count()
    }

    /// Returns whether it has no edges.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.contains.contains(&true)
    }

    /// Returns the places of the edges, `[writer, reader]`, reader by reader.
    pub fn places(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.graph.places().filter(|place| self.contains(*place))
    }

    /// Returns the edges, reader by reader.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        self.places().map(|place| self.graph.edge(place))
    }

    /// Returns the edges of the graph that are not in the set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut set = Self::empty(self.graph);
        self.graph.places().filter(|place| !self.contains(*place)).for_each(|place| set.set(place, true));
        set
    }

    /// Returns the edges that are in one of two sets of one graph, or in both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let contains = self.contains.iter().zip(&other.contains).map(|(a, b)| *a || *b).collect();
        Self { graph: self.graph, contains }
    }

    /// Returns the edges that lie on a path of the set from the input to the logits.
    ///
    /// This is the pruning of EAP-IG and MIB: nodes without an edge into them or out of them are
    /// removed with their edges until nothing changes.
    #[must_use]
    pub fn pruned(&self) -> Self {
        self.fed_by_the_input().to_the_logits()
    }

    /// Returns the edges that lie on a path of the set that ends at the logits.
    #[must_use]
    pub fn to_the_logits(&self) -> Self {
        let graph = self.graph;
        let logits = graph.n_readers() - 1;
        // By writer, whether a path leads from it to the logits. Readers of a writer's output come
        // after it: one pass from the last writer to the first finds all.
        let mut arrives = vec![false; graph.n_writers()];
        for writer in (0..graph.n_writers()).rev() {
            let leads = |reader: usize| reader == logits || graph.node_of(reader).is_some_and(|node| arrives[node]);
            arrives[writer] = (0..=logits).any(|reader| self.contains([writer, reader]) && leads(reader));
        }
        let leads = |reader: usize| reader == logits || graph.node_of(reader).is_some_and(|node| arrives[node]);
        self.filtered(|[_, reader]| leads(reader))
    }

    /// Returns the edges that lie on a path of the set that starts at the input.
    fn fed_by_the_input(&self) -> Self {
        let graph = self.graph;
        // By writer, whether a path leads to it from the input.
        let mut is_fed = vec![false; graph.n_writers()];
        is_fed[0] = true;
        for reader in 0..graph.n_readers() {
            // Readers are in the order of their nodes, after the nodes of all their writers.
            let Some(node) = graph.node_of(reader) else { continue };
            is_fed[node] |=
                (0..graph.n_writers_to(reader)).any(|writer| is_fed[writer] && self.contains([writer, reader]));
        }
        self.filtered(|[writer, _]| is_fed[writer])
    }

    /// Returns the edges whose places are accepted.
    fn filtered(&self, accepts: impl Fn([usize; 2]) -> bool) -> Self {
        let mut set = Self::empty(self.graph);
        self.places().filter(|place| accepts(*place)).for_each(|place| set.set(place, true));
        set
    }
}

impl EdgeGraph {
    /// Returns the index of the writer that reader `index` is an input of. `None` for the logits.
    ///
    /// # Panics
    /// If there is no such reader.
    #[must_use]
    pub fn node_of(&self, index: usize) -> Option<usize> {
        let n_heads = self.heads_of(0).len() / 3;
        let before = |layer: usize| 1 + layer * (n_heads + 1);
        match self.reader(index) {
            Reader::Head(head, _) => Some(before(head.layer) + head.head),
            Reader::Mlp(layer) => Some(before(layer) + n_heads),
            Reader::Logits => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rewire_model::TransformerConfig;

    use super::*;

    fn graph() -> EdgeGraph {
        EdgeGraph::new(&TransformerConfig::gpt2(3, 2, 8, 11, 6))
    }

    fn set(names: &[&str]) -> EdgeSet {
        let edges: Vec<Edge> = names.iter().map(|name| name.parse().unwrap()).collect();
        EdgeSet::of(graph(), &edges).unwrap()
    }

    /// Prunes as the definition says: removes nodes until nothing changes.
    fn literal_pruned(set: &EdgeSet) -> EdgeSet {
        let graph = *set.graph();
        let (mut set, mut kept) = (set.clone(), vec![true; graph.n_writers()]);
        loop {
            let has = |node: usize, set: &EdgeSet| {
                let is_fed = node == 0 || set.places().any(|[_, reader]| graph.node_of(reader) == Some(node));
                is_fed && set.places().any(|[writer, _]| writer == node)
            };
            let before = (set.clone(), kept.clone());
            (0..kept.len()).for_each(|node| kept[node] &= has(node, &set));
            set = set.filtered(|[writer, reader]| kept[writer] && graph.node_of(reader).is_none_or(|node| kept[node]));
            if before == (set.clone(), kept.clone()) {
                return set;
            }
        }
    }

    #[test]
    fn pruning_leaves_what_the_literal_definition_leaves() {
        let graph = graph();
        let places: Vec<[usize; 2]> = graph.places().collect();
        let mut state = 1_u64;
        let mut sizes = std::collections::BTreeSet::new();
        for share in [5, 10, 20, 30, 50] {
            for _ in 0..40 {
                let mut random = EdgeSet::empty(graph);
                for &place in &places {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    random.set(place, (state >> 33) % 100 < share);
                }
                assert_eq!(random.pruned(), literal_pruned(&random));
                sizes.insert(random.pruned().len());
            }
        }
        assert!(sizes.contains(&0) && sizes.len() > 20, "{sizes:?}");
    }

    #[test]
    fn pruning_removes_nodes_without_an_edge_into_them_or_out_of_them() {
        let path = ["input->a0.h0<q>", "a0.h0->m1", "m1->logits"];
        let beside = ["a0.h1->m1", "input->a1.h0<v>", "m0->logits"];
        assert_eq!(set(&[path, beside].concat()).pruned(), set(&path));
        assert_eq!(set(&["input->a0.h0<q>", "m1->logits"]).pruned(), EdgeSet::empty(graph()));
        assert_eq!(EdgeSet::all(graph()).pruned(), EdgeSet::all(graph()));
    }

    #[test]
    fn a_set_and_its_complement_have_all_edges() {
        let some = set(&["input->a0.h0<q>", "m1->logits"]);
        assert_eq!(some.len() + some.complement().len(), graph().n_edges());
        assert_eq!(some.union(&some.complement()), EdgeSet::all(graph()));
    }
}
