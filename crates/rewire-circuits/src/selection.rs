//! Circuits of edges chosen by scores: the best edges, or the best edges that lead to the logits.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;

use ndarray::Array2;
use rewire_analysis::edges::{EdgeEffects, EdgeGraph, EdgeSet};
use rewire_analysis::run::Direction;

/// How edges are ranked by their scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// By the size of the score. MIB takes the circuit-model distance (CMD) from these circuits.
    Absolute,
    /// By the score. MIB takes the circuit performance ratio (CPR) from these circuits.
    Signed,
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ranking::Absolute => "absolute",
            Ranking::Signed => "signed",
        })
    }
}

/// The scores of all edges of a model, with the sign of EAP-IG and MIB: a positive score means that
/// corrupting the edge hurts the behavior.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeScores {
    /// The edges.
    pub graph: EdgeGraph,
    /// The scores, `[writer, reader]`. A place without an edge has any number. NaN stands for an
    /// edge without a score: it is in every circuit.
    pub values: Array2<f32>,
}

impl EdgeScores {
    /// Returns the scores that effects of edges, averaged over the prompts, give.
    #[must_use]
    pub fn of(effects: &EdgeEffects) -> Self {
        Self::from_mean(effects, effects.mean())
    }

    /// Returns the scores that the effects of edges on some of the prompts give. The effects must
    /// be those of each prompt.
    ///
    /// # Panics
    /// If there is no such prompt.
    #[must_use]
    pub fn on(effects: &EdgeEffects, prompts: &[usize]) -> Self {
        let mut sum = Array2::<f64>::zeros((effects.graph.n_writers(), effects.graph.n_readers()));
        for &prompt in prompts {
            let of_prompt = effects.values.index_axis(ndarray::Axis(0), prompt);
            sum.zip_mut_with(&of_prompt, |sum, value| *sum += f64::from(*value));
        }
        let n = prompts.len().max(1) as f64;
        Self::from_mean(effects, sum.mapv(|total| (total / n) as f32))
    }

    fn from_mean(effects: &EdgeEffects, mean: Array2<f32>) -> Self {
        // Corrupting an edge that matters lowers the metric of the clean run; restoring it raises
        // the metric of the corrupted run.
        let sign = match effects.direction {
            Direction::Noising => -1.0,
            Direction::Denoising => 1.0,
        };
        Self { graph: effects.graph, values: mean.mapv(|effect| sign * effect) }
    }

    /// Returns the `n` best edges. Edges of equal rank keep the order of writers, then readers.
    #[must_use]
    pub fn top(&self, n: usize, ranking: Ranking) -> EdgeSet {
        let mut all: Vec<[usize; 2]> = self.graph.places().collect();
        all.sort_unstable();
        all.sort_by(|a, b| self.rank(*b, ranking).total_cmp(&self.rank(*a, ranking)));
        let mut set = EdgeSet::empty(self.graph);
        all.into_iter().take(n).for_each(|place| set.set(place, true));
        self.with_unscored(set)
    }

    /// Returns `n` edges, chosen one by one: each is the best of the edges into the logits and into
    /// the nodes whose outputs chosen edges carry. This is the greedy search of EAP-IG. There are
    /// fewer edges if no further edge leads to the logits.
    #[must_use]
    pub fn greedy(&self, n: usize, ranking: Ranking) -> EdgeSet {
        let logits = self.graph.n_readers() - 1;
        let mut set = EdgeSet::empty(self.graph);
        let mut reached = vec![false; self.graph.n_writers()];
        let mut open = BinaryHeap::new();
        self.open(logits, ranking, &mut open);
        for _ in 0..n {
            let Some(Candidate { place, .. }) = open.pop() else { break };
            set.set(place, true);
            let node = place[0];
            if !std::mem::replace(&mut reached[node], true) {
                let of_node = |reader: &usize| self.graph.node_of(*reader) == Some(node);
                (0..logits).filter(of_node).for_each(|reader| self.open(reader, ranking, &mut open));
            }
        }
        self.with_unscored(set)
    }

    /// Adds the edges into a reader to the candidates.
    fn open(&self, reader: usize, ranking: Ranking, open: &mut BinaryHeap<Candidate>) {
        let candidate = |writer| Candidate { rank: self.rank([writer, reader], ranking), place: [writer, reader] };
        open.extend((0..self.graph.n_writers_to(reader)).map(candidate));
    }

    fn rank(&self, place: [usize; 2], ranking: Ranking) -> f32 {
        match (self.values[place], ranking) {
            (score, _) if score.is_nan() => f32::INFINITY,
            (score, Ranking::Absolute) => score.abs(),
            // Adding 0 turns -0 into 0.
            (score, Ranking::Signed) => score + 0.0,
        }
    }

    /// Adds the edges without a score.
    fn with_unscored(&self, mut set: EdgeSet) -> EdgeSet {
        self.graph.places().filter(|place| self.values[*place].is_nan()).for_each(|place| set.set(place, true));
        set
    }
}

/// An edge that a greedy search can add. The largest is of the best rank, and of equal ones the
/// first.
struct Candidate {
    rank: f32,
    place: [usize; 2],
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.total_cmp(&other.rank).then_with(|| other.place.cmp(&self.place))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests {
    use rewire_model::TransformerConfig;

    use super::*;

    fn scores(of: &[(&str, f32)]) -> EdgeScores {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(2, 2, 8, 11, 6));
        let mut values = Array2::zeros((graph.n_writers(), graph.n_readers()));
        for (name, score) in of {
            values[graph.place(&name.parse().unwrap()).unwrap()] = *score;
        }
        EdgeScores { graph, values }
    }

    fn names(set: &EdgeSet) -> Vec<String> {
        set.edges().map(|edge| edge.to_string()).collect()
    }

    #[test]
    fn the_ranking_says_whether_harmful_edges_are_chosen() {
        let scores = scores(&[("input->m0", -3.0), ("m0->logits", 2.0), ("m0->m1", 1.0)]);
        assert_eq!(names(&scores.top(2, Ranking::Absolute)), ["input->m0", "m0->logits"]);
        assert_eq!(names(&scores.top(2, Ranking::Signed)), ["m0->m1", "m0->logits"]);
    }

    #[test]
    fn edges_of_equal_score_keep_the_order_of_writers_then_readers() {
        let scores = scores(&[]);
        assert_eq!(names(&scores.top(2, Ranking::Absolute)), ["input->a0.h0<q>", "input->a0.h1<q>"]);
        assert_eq!(scores.top(usize::MAX, Ranking::Signed), EdgeSet::all(scores.graph));
    }

    #[test]
    fn edges_without_a_score_are_in_every_circuit() {
        let scores = scores(&[("input->m0", f32::NAN), ("m0->logits", 2.0)]);
        assert_eq!(names(&scores.top(0, Ranking::Absolute)), ["input->m0"]);
        assert_eq!(names(&scores.greedy(1, Ranking::Absolute)), ["input->m0", "m0->logits"]);
    }

    #[test]
    fn the_greedy_search_adds_only_edges_into_reached_nodes() {
        let scores = scores(&[("input->a0.h0<q>", 9.0), ("a0.h0->m1", 5.0), ("m1->logits", 1.0), ("m0->logits", 0.5)]);
        assert_eq!(names(&scores.top(2, Ranking::Signed)), ["input->a0.h0<q>", "a0.h0->m1"]);
        for (n, expected) in [
            (1, vec!["m1->logits"]),
            (2, vec!["a0.h0->m1", "m1->logits"]),
            (3, vec!["input->a0.h0<q>", "a0.h0->m1", "m1->logits"]),
        ] {
            let greedy = scores.greedy(n, Ranking::Signed);
            assert_eq!(names(&greedy), expected);
        }
        assert_eq!(scores.greedy(usize::MAX, Ranking::Signed), EdgeSet::all(scores.graph));
    }
}
