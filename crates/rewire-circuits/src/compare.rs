//! Two circuits of one model side by side: what they share, and how far their scores agree.

use rewire_analysis::edges::{Edge, EdgeSet};
use rewire_analysis::stats::{pearson, spearman};

use crate::error::CircuitError;
use crate::graph_file::{CircuitFile, nodes_of};

/// How many members two sets share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// Number of members of both.
    pub both: usize,
    /// Number of members of the first alone, and of the second alone.
    pub only: [usize; 2],
}

impl Overlap {
    /// Counts the members. Each item says whether the first set has it, and whether the second has.
    fn count(members: impl Iterator<Item = [bool; 2]>) -> Self {
        members.fold(Self { both: 0, only: [0; 2] }, |mut counted, is_in| {
            match is_in {
                [true, true] => counted.both += 1,
                [true, false] => counted.only[0] += 1,
                [false, true] => counted.only[1] += 1,
                [false, false] => {}
            }
            counted
        })
    }

    /// Returns the Jaccard index: the members of both over the members of either. NaN for two empty
    /// sets.
    #[must_use]
    pub fn jaccard(&self) -> f64 {
        self.both as f64 / (self.both + self.only[0] + self.only[1]) as f64
    }

    /// Returns the Jaccard index of two random sets of these sizes that share as many of `all`
    /// things as random sets do on average.
    #[must_use]
    pub fn jaccard_by_chance(&self, all: usize) -> f64 {
        let [first, second] = self.only.map(|only| (only + self.both) as f64);
        let both = first * second / all as f64;
        both / (first + second - both)
    }
}

/// Two circuits of one model, compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The edges that they share.
    pub edges: Overlap,
    /// The nodes that they share: the input, heads and MLPs with an edge in the circuit.
    pub nodes: Overlap,
    /// Pearson's correlation of the scores on the edges of both. `None` for fewer than two edges
    /// with both scores, and if one of the scores does not vary.
    pub pearson: Option<f64>,
    /// Spearman's correlation on the same edges.
    pub spearman: Option<f64>,
    /// The edges of both circuits, then those of the first alone, then those of the second alone,
    /// each with both scores. Edges with the largest score come first.
    pub members: [Vec<(Edge, [f32; 2])>; 3],
}

impl Comparison {
    /// Compares two circuits.
    ///
    /// # Errors
    /// [`CircuitError::OtherModel`] if they are not circuits of one graph.
    pub fn new(first: &CircuitFile, second: &CircuitFile) -> Result<Self, CircuitError> {
        let graph = *first.circuit.graph();
        if *second.circuit.graph() != graph {
            return Err(CircuitError::OtherModel);
        }
        let circuits: [&EdgeSet; 2] = [&first.circuit, &second.circuit];
        let edges = Overlap::count(graph.places().map(|place| circuits.map(|circuit| circuit.contains(place))));
        let of_nodes = circuits.map(nodes_of);
        let nodes = Overlap::count((0..graph.n_writers()).map(|writer| [of_nodes[0][writer], of_nodes[1][writer]]));
        let mut members = [const { Vec::new() }; 3];
        for place in graph.places() {
            let list = match circuits.map(|circuit| circuit.contains(place)) {
                [true, true] => 0,
                [true, false] => 1,
                [false, true] => 2,
                [false, false] => continue,
            };
            members[list].push((graph.edge(place), [first, second].map(|file| file.scores.values[place])));
        }
        let size = |scores: &[f32; 2]| scores[0].abs().max(scores[1].abs());
        members.iter_mut().for_each(|list| list.sort_by(|a, b| size(&b.1).total_cmp(&size(&a.1))));
        let scores: Vec<(f32, f32)> =
            members[0].iter().map(|(_, [a, b])| (*a, *b)).filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
        let [pearson, spearman] = [pearson(scores.iter().copied()), spearman(scores.iter().copied())];
        Ok(Self { edges, nodes, pearson, spearman, members })
    }
}

#[cfg(test)]
mod tests {
    use rewire_analysis::edges::EdgeGraph;
    use rewire_model::TransformerConfig;

    use super::*;
    use crate::EdgeScores;

    fn file(layers: usize, edges: &[(&str, f32)]) -> CircuitFile {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(layers, 2, 8, 11, 6));
        let mut values = ndarray::Array2::zeros((graph.n_writers(), graph.n_readers()));
        let mut circuit = EdgeSet::empty(graph);
        for (name, score) in edges {
            let place = graph.place(&name.parse().unwrap()).unwrap();
            values[place] = *score;
            circuit.set(place, true);
        }
        CircuitFile { circuit, scores: EdgeScores { graph, values }, node_scores: None, warnings: Vec::new() }
    }

    #[test]
    fn shared_edges_and_nodes_are_counted_and_their_scores_correlated() {
        let first = file(2, &[("input->m0", 1.0), ("m0->logits", 2.0), ("m0->m1", 4.0), ("m1->logits", 9.0)]);
        let second = file(2, &[("input->m0", 3.0), ("m0->logits", 5.0), ("m0->m1", 9.0), ("a0.h1->logits", 1.0)]);
        let found = Comparison::new(&first, &second).unwrap();
        assert_eq!(found.edges, Overlap { both: 3, only: [1, 1] });
        // input, m0 and m1 are in both; a0.h1 only in the second.
        assert_eq!(found.nodes, Overlap { both: 3, only: [0, 1] });
        assert_eq!([found.edges.jaccard(), found.nodes.jaccard()], [0.6, 0.75]);
        assert!((found.pearson.unwrap() - 1.0).abs() < 1e-6 && found.spearman == Some(1.0), "{found:?}");
        let names: Vec<String> = found.members[0].iter().map(|(edge, _)| edge.to_string()).collect();
        assert_eq!(names, ["m0->m1", "m0->logits", "input->m0"]);
        assert_eq!(found.members[2], [("a0.h1->logits".parse().unwrap(), [0.0, 1.0])]);
    }

    #[test]
    fn a_circuit_equals_itself_and_shares_nothing_with_others() {
        let one = file(2, &[("input->m0", 1.0), ("m0->logits", 2.0)]);
        let same = Comparison::new(&one, &one).unwrap();
        assert_eq!([same.edges.jaccard(), same.nodes.jaccard()], [1.0, 1.0]);
        let other = Comparison::new(&one, &file(2, &[("input->logits", 1.0)])).unwrap();
        assert_eq!((other.edges.jaccard(), other.pearson), (0.0, None));
        // Two random sets of 10 of 100 share one on average.
        assert_eq!(Overlap { both: 0, only: [10, 10] }.jaccard_by_chance(100), 1.0 / 19.0);
    }

    #[test]
    fn circuits_of_different_models_are_refused() {
        let refused = Comparison::new(&file(2, &[]), &file(3, &[])).unwrap_err();
        assert!(matches!(refused, CircuitError::OtherModel), "{refused}");
    }
}
