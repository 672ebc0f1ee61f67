//! Searches that remove edges one by one, each by an exact evaluation: ACDC, and the exact-greedy
//! search.

use burn::tensor::backend::Backend;
use rewire_analysis::edges::{CircuitOutcome, CircuitRuns, Edge, EdgeGraph, EdgeSet, Reader};
use rewire_tasks::Metric;

use crate::curve::Resampled;
use crate::error::CircuitError;
use crate::selection::{EdgeScores, Ranking};

/// Most removals that are tested side by side, each after all before it.
const MOST_AT_ONCE: usize = 16;

/// A circuit that a search found, and what the search took.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// The circuit, pruned.
    pub circuit: EdgeSet,
    /// The removed edges that were tested, in order, each with the change of the loss.
    pub removed: Vec<(Edge, f64)>,
    /// The kept edges that were tested, in order, each with the change of the loss that its removal
    /// would have made.
    pub kept: Vec<(Edge, f64)>,
    /// Number of circuits that were evaluated, on all prompts.
    pub evaluated: usize,
}

impl Shrunk {
    /// Returns scores that rank edges as the search did: the edges of the circuit by the change of
    /// the loss, then the removed edges from the last to the first, then all other edges by
    /// `scores`. All scores are above 0.
    #[must_use]
    pub fn ranking(&self, scores: &EdgeScores) -> EdgeScores {
        let graph = scores.graph;
        let mut kept = self.kept.clone();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1));
        let is_inside = |edge: &Edge| graph.place(edge).is_ok_and(|place| self.circuit.contains(place));
        let (inside, pruned): (Vec<Edge>, Vec<Edge>) = kept.into_iter().map(|(edge, _)| edge).partition(is_inside);
        let removed = self.removed.iter().rev().map(|(edge, _)| *edge);
        let tested = inside.into_iter().chain(pruned).chain(removed).filter_map(|edge| graph.place(&edge).ok());
        let mut rest: Vec<[usize; 2]> = graph.places().collect();
        rest.sort_by(|a, b| scores.values[*b].total_cmp(&scores.values[*a]));
        let mut values = ndarray::Array2::zeros(scores.values.dim());
        let mut rank = graph.n_edges() as f32;
        for place in tested.chain(rest) {
            if values[place] == 0.0 {
                values[place] = rank;
                rank -= 1.0;
            }
        }
        EdgeScores { graph, values }
    }
}

/// Finds a circuit by ACDC (Conmy et al. 2023).
///
/// Goes through the readers from the logits down, and through the edges into each from the last
/// writer to the first. An edge is removed for good if its removal raises the loss by less than
/// `threshold`. The loss is the mean of the metric `kl`, and minus the mean of any other metric.
/// In a layer, the MLP comes first, then the heads from the last to the first, each with its
/// queries, keys and values. Edges into a head or MLP that nothing in the circuit reads are removed
/// without a test.
///
/// Removals are tested side by side as if all of them succeeded; after the first that fails, the
/// rest is tested again. The circuit is that of the search one by one.
///
/// # Errors
/// [`CircuitError::Analysis`] if a run fails.
pub fn acdc<B: Backend, M: Metric>(
    runs: &CircuitRuns<B, M>,
    threshold: f64,
    progress: &dyn Fn(usize, usize),
) -> Result<Shrunk, CircuitError> {
    let order = reverse_order(&runs.graph());
    let all = EdgeSet::all(runs.graph());
    let start = loss(runs.unpatched().metric, &runs.unpatched().baselines.clean);
    let accepts = |found: &CircuitOutcome, circuit: usize, before: f64| {
        let after = loss_of(found, circuit);
        Verdict { after, is_accepted: after - before < threshold }
    };
    shrink(runs, all, start, &order, &accepts, progress)
}

/// Finds the smallest circuit that keeps a share of the behavior, edge by edge.
///
/// Takes the best edges by scores, twice as many each time, until the faithfulness is at least
/// `share` with 95% confidence over prompts. Then removes edges from the lowest score to the
/// highest; a removal stays if the faithfulness is still at least `share` with that confidence.
/// Every edge that is left is needed: without it, and with the edges that were left when it was
/// tested, the bound is not met.
///
/// # Errors
/// [`CircuitError::Analysis`] if a run fails, and [`CircuitError::Unfaithful`] if the whole model
/// does not meet the bound.
pub fn exact_greedy<B: Backend, M: Metric>(
    runs: &CircuitRuns<B, M>,
    scores: &EdgeScores,
    share: f64,
    seed: u64,
    progress: &dyn Fn(usize, usize),
) -> Result<Shrunk, CircuitError> {
    let bound = |found: &CircuitOutcome, circuit: usize| Resampled::lower_bound(found, circuit, seed);
    let n_edges = scores.graph.n_edges();
    let (mut n, mut evaluated) = (16, 0);
    let start = loop {
        let set = scores.top(n.min(n_edges), Ranking::Signed).pruned();
        let found = runs.evaluate(std::slice::from_ref(&set))?;
        evaluated += 1;
        if bound(&found, 0) >= share {
            break set;
        }
        if n >= n_edges {
            return Err(CircuitError::Unfaithful { share });
        }
        n *= 2;
    };
    let mut order: Vec<[usize; 2]> = start.places().collect();
    order.sort_by(|a, b| scores.values[*a].total_cmp(&scores.values[*b]));
    let accepts = |found: &CircuitOutcome, circuit: usize, _: f64| Verdict {
        after: loss_of(found, circuit),
        is_accepted: bound(found, circuit) >= share,
    };
    let found = runs.evaluate(std::slice::from_ref(&start))?;
    let shrunk = shrink(runs, start, loss_of(&found, 0), &order, &accepts, progress)?;
    Ok(Shrunk { evaluated: shrunk.evaluated + evaluated + 1, ..shrunk })
}

/// What a search says of a removal.
struct Verdict {
    /// The loss after the removal.
    after: f64,
    is_accepted: bool,
}

/// Removes edges in an order. `accepts` says of a circuit, and of the loss before the removal,
/// whether the removal stays.
fn shrink<B: Backend, M: Metric>(
    runs: &CircuitRuns<B, M>,
    start: EdgeSet,
    mut loss: f64,
    order: &[[usize; 2]],
    accepts: &dyn Fn(&CircuitOutcome, usize, f64) -> Verdict,
    progress: &dyn Fn(usize, usize),
) -> Result<Shrunk, CircuitError> {
    let graph = runs.graph();
    let mut found = Shrunk { circuit: start, removed: Vec::new(), kept: Vec::new(), evaluated: 0 };
    let (mut done, mut at_once) = (0, 1);
    progress(0, order.len());
    while done < order.len() {
        // The next removals, each with all before it.
        let (mut circuits, mut tested, mut next) = (Vec::new(), Vec::new(), done);
        let mut circuit = found.circuit.clone();
        while next < order.len() && tested.len() < at_once {
            let place = order[next];
            next += 1;
            if !circuit.contains(place) {
                continue;
            }
            let is_read = is_read(&circuit, place[1]);
            circuit.set(place, false);
            if is_read {
                circuits.push(circuit.clone());
                tested.push(next);
            }
        }
        let outcome = runs.evaluate(&circuits)?;
        found.evaluated += circuits.len();
        let mut failed = None;
        for (number, &after) in tested.iter().enumerate() {
            let verdict = accepts(&outcome, number, loss);
            let edge = (graph.edge(order[after - 1]), verdict.after - loss);
            if !verdict.is_accepted {
                found.kept.push(edge);
                failed = Some(number);
                break;
            }
            found.removed.push(edge);
            loss = verdict.after;
        }
        match failed {
            None => {
                // Removals without a test after the last one tested are in this circuit too.
                (found.circuit, done) = (circuit, next);
                at_once = (2 * at_once).min(MOST_AT_ONCE);
            }
            Some(number) => {
                let mut circuit = circuits.swap_remove(number);
                circuit.set(order[tested[number] - 1], true);
                (found.circuit, done) = (circuit, tested[number]);
                at_once = (number + 1).max(1);
            }
        }
        progress(done, order.len());
    }
    found.circuit = found.circuit.pruned();
    Ok(found)
}

/// Returns whether a reader's node has an edge out of it in the circuit.
fn is_read(circuit: &EdgeSet, reader: usize) -> bool {
    let graph = circuit.graph();
    graph.node_of(reader).is_none_or(|node| (0..graph.n_readers()).any(|other| circuit.contains([node, other])))
}

/// Returns the places of all edges from the logits down, and from the last writer to the first.
fn reverse_order(graph: &EdgeGraph) -> Vec<[usize; 2]> {
    let depth = |reader: usize| match graph.reader(reader) {
        Reader::Logits => (usize::MAX, 0, 0, 0),
        Reader::Mlp(layer) => (layer, 1, 0, 0),
        Reader::Head(head, input) => (head.layer, 0, head.head, 2 - input as usize),
    };
    let mut readers: Vec<usize> = (0..graph.n_readers()).collect();
    readers.sort_by_key(|reader| std::cmp::Reverse(depth(*reader)));
    let into = |reader: usize| (0..graph.n_writers_to(reader)).rev().map(move |writer| [writer, reader]);
    readers.into_iter().flat_map(into).collect()
}

/// Returns the loss of a circuit.
fn loss_of(found: &CircuitOutcome, circuit: usize) -> f64 {
    loss(found.metric, &found.values.column(circuit).to_vec())
}

/// Returns the loss: the mean divergence, or minus the mean of another metric.
fn loss(metric: &str, values: &[f32]) -> f64 {
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64;
    if metric == "kl" { mean } else { -mean }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use rewire_analysis::edges::evaluate_circuits;
    use rewire_analysis::run::{Execution, Intervention, Question};
    use rewire_model::{Transformer, TransformerConfig};
    use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};

    use super::*;

    fn pairs() -> PromptPairs {
        let pair = |last: u32| PromptPair {
            clean: vec![1, 2, 3, 4],
            corrupted: vec![1, 5, 3, last],
            answers: vec![6],
            wrong_answers: vec![7 + last % 2],
        };
        PromptPairs::new((4..9).map(pair).collect()).unwrap()
    }

    /// ACDC as it is defined: one test after the other, each a whole run with nothing reused.
    fn literal_acdc(model: &Transformer<Flex>, pairs: &PromptPairs, threshold: f64) -> EdgeSet {
        let metric = LogitDiff::new(pairs);
        let loss_with = |circuit: &EdgeSet| {
            let question = Question::new(pairs, &metric).in_metric_units();
            let sets = std::slice::from_ref(circuit);
            let execution = Execution::reference();
            loss_of(&evaluate_circuits(model, question, sets, &Intervention::Resample, &execution).unwrap(), 0)
        };
        let graph = EdgeGraph::new(model.config());
        let mut circuit = EdgeSet::all(graph);
        let mut before = loss_with(&circuit);
        for place in reverse_order(&graph) {
            let is_read = is_read(&circuit, place[1]);
            circuit.set(place, false);
            if is_read {
                let after = loss_with(&circuit);
                if after - before < threshold {
                    before = after;
                } else {
                    circuit.set(place, true);
                }
            }
        }
        circuit.pruned()
    }

    #[test]
    fn acdc_finds_the_circuit_of_the_literal_search() {
        let pairs = pairs();
        let metric = LogitDiff::new(&pairs);
        let mut sizes = std::collections::BTreeSet::new();
        for (seed, config) in
            [(0, TransformerConfig::gpt2(2, 2, 16, 17, 6)), (1, TransformerConfig::neox(2, 2, 16, 17, 6))]
        {
            let model = Transformer::<Flex>::random(&config, seed, &Default::default());
            let question = Question::new(&pairs, &metric).in_metric_units();
            let (outside, execution) = (Intervention::Resample, Execution::default());
            let runs = CircuitRuns::new(&model, question, &outside, &execution).unwrap();
            for threshold in [0.0031, 0.0117, 0.0471] {
                let found = acdc(&runs, threshold, &|_, _| {}).unwrap();
                assert_eq!(found.circuit, literal_acdc(&model, &pairs, threshold), "{config:?} {threshold}");
                assert!(found.removed.iter().all(|(_, change)| *change < threshold));
                assert!(found.kept.iter().all(|(_, change)| *change >= threshold));
                sizes.insert(found.circuit.len());
            }
        }
        assert!(sizes.len() > 3, "{sizes:?}");
    }

    #[test]
    fn every_edge_of_an_exact_greedy_circuit_is_needed() {
        let pairs = pairs();
        let metric = LogitDiff::new(&pairs);
        let model = Transformer::<Flex>::random(&TransformerConfig::gpt2(2, 2, 16, 17, 6), 3, &Default::default());
        let question = Question::new(&pairs, &metric).in_metric_units();
        let (outside, execution) = (Intervention::Resample, Execution::default());
        let runs = CircuitRuns::new(&model, question, &outside, &execution).unwrap();
        let graph = runs.graph();
        let values = ndarray::Array2::from_shape_fn((graph.n_writers(), graph.n_readers()), |(w, r)| {
            ((w * 7 + r * 3) % 11) as f32
        });
        let scores = EdgeScores { graph, values };
        let bound =
            |circuit: &EdgeSet| Resampled::lower_bound(&runs.evaluate(std::slice::from_ref(circuit)).unwrap(), 0, 5);
        let found = exact_greedy(&runs, &scores, 0.6, 5, &|_, _| {}).unwrap();
        assert!(bound(&found.circuit) >= 0.6 && found.circuit.len() < graph.n_edges());
        // The last edge that was kept is needed by the circuit as it is.
        let (last, _) = found.kept.last().unwrap();
        let mut without = found.circuit.clone();
        without.set(graph.place(last).unwrap(), false);
        assert!(bound(&without) < 0.6);
        // As many of the best edges as the search kept are the circuit.
        let kept = found.kept.iter().filter(|(edge, _)| found.circuit.contains(graph.place(edge).unwrap())).count();
        let ranked = found.ranking(&scores);
        assert_eq!((kept, ranked.top(kept, Ranking::Signed)), (found.circuit.len(), found.circuit.clone()));
        let first = graph.place(&found.removed[0].0).unwrap();
        let last = graph.place(&found.removed.last().unwrap().0).unwrap();
        assert!(ranked.values[first] < ranked.values[last]);
        assert!(graph.places().all(|place| ranked.values[place] >= 1.0));
        let refused = exact_greedy(&runs, &scores, 1.5, 5, &|_, _| {}).unwrap_err();
        assert!(matches!(refused, CircuitError::Unfaithful { .. }), "{refused}");
    }
}
