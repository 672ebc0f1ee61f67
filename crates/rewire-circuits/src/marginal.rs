//! The marginal effect of each edge of a circuit: what the circuit loses without this edge alone.

use burn::tensor::backend::Backend;
use rewire_analysis::edges::{Edge, EdgeSet, evaluate_circuits};
use rewire_analysis::run::{Execution, Intervention, Question};
use rewire_model::Transformer;
use rewire_tasks::Metric;

use crate::curve::{Curve, Resampled};
use crate::error::CircuitError;

/// Number of resamples of the prompts.
const RESAMPLES: usize = 1000;
/// Fewest clusters of prompts for an interval.
const FEWEST: usize = 4;

/// What a circuit loses without one edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MarginalEffect {
    /// The edge.
    pub edge: Edge,
    /// The faithfulness of the circuit minus that of the circuit without the edge, as a share of
    /// the behavior. Above 0, the circuit needs the edge.
    pub effect: f64,
    /// The 95% bootstrap interval over clusters of prompts; both circuits have the same resamples.
    /// `None` for fewer than four clusters.
    pub interval: Option<[f64; 2]>,
}

impl MarginalEffect {
    /// Returns whether the circuit loses by the removal, in 95% of the resamples.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.interval.is_some_and(|[low, _]| low > 0.0)
    }
}

/// Removes each of some edges from a circuit, alone, and measures what is lost. A circuit is
/// minimal if it loses by every removal (Wang et al. 2022). The run with the removed edge keeps
/// all others.
///
/// # Errors
/// [`CircuitError::NoBehavior`], and [`CircuitError::Analysis`] if a run fails or an edge is not
/// one of the model.
pub fn marginal_effects<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    circuit: &EdgeSet,
    edges: &[Edge],
    outside: &Intervention<B>,
    seed: u64,
    execution: &Execution,
) -> Result<Vec<MarginalEffect>, CircuitError> {
    let mut circuits = vec![circuit.clone()];
    for edge in edges {
        let mut without = circuit.clone();
        without.set(circuit.graph().place(edge)?, false);
        circuits.push(without);
    }
    let outcome = evaluate_circuits(model, question, &circuits, outside, execution)?;
    // Sizes do not matter for the faithfulness.
    let places: Vec<f64> = (0..circuits.len()).map(|i| i as f64).collect();
    let curve = Curve::new(&places, &outcome)?;
    let clusters = question.pairs.clusters();
    let mut resampled = Resampled::default();
    if clusters.len() >= FEWEST {
        resampled.draw(&places, &outcome, &clusters, RESAMPLES, seed);
    }
    let of = |(i, edge): (usize, &Edge)| MarginalEffect {
        edge: *edge,
        effect: curve.faithfulness[0] - curve.faithfulness[i + 1],
        interval: resampled.difference(0, i + 1),
    };
    Ok(edges.iter().enumerate().map(of).collect())
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use rewire_analysis::edges::EdgeGraph;
    use rewire_model::TransformerConfig;
    use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};

    use super::*;

    #[test]
    fn the_marginal_effect_is_the_faithfulness_with_the_edge_minus_that_without() {
        let pair = |last: u32| PromptPair {
            clean: vec![1, 2, 3, 4],
            corrupted: vec![1, 5, 3, last],
            answers: vec![6],
            wrong_answers: vec![7 + last % 2],
        };
        let pairs = PromptPairs::new((4..12).map(pair).collect()).unwrap();
        let metric = LogitDiff::new(&pairs);
        let question = || Question::new(&pairs, &metric).in_metric_units();
        let model = Transformer::<Flex>::random(&TransformerConfig::gpt2(2, 2, 16, 17, 6), 3, &Default::default());
        let graph = EdgeGraph::new(model.config());
        // Nothing reads m1 in the circuit: its edge has no effect.
        let names = ["input->m0", "m0->logits", "input->a1.h0<v>", "a1.h0->logits", "input->m1"];
        let edges: Vec<Edge> = names.iter().map(|name| name.parse().unwrap()).collect();
        let circuit = EdgeSet::of(graph, &edges).unwrap();
        let (outside, execution) = (Intervention::Resample, Execution::default());
        let found = marginal_effects(&model, question(), &circuit, &edges, &outside, 0, &execution).unwrap();
        let mean = |set: EdgeSet| {
            let found = evaluate_circuits(&model, question(), &[set], &outside, &Execution::reference()).unwrap();
            let mean = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
            let [all, empty] = [mean(&found.baselines.clean), mean(&found.empty)];
            (mean(&found.values.column(0).to_vec()) - empty) / (all - empty)
        };
        for effect in &found {
            let mut without = circuit.clone();
            without.set(graph.place(&effect.edge).unwrap(), false);
            let expected = mean(circuit.clone()) - mean(without);
            assert!((effect.effect - expected).abs() < 1e-4, "{effect:?}, expected {expected}");
            let [low, high] = effect.interval.unwrap();
            assert!(low <= effect.effect + 1e-9 && effect.effect <= high + 1e-9, "{effect:?}");
        }
        assert!(found[4].effect.abs() < 1e-5 && !found[4].is_needed(), "{:?}", found[4]);
        assert!(found[0].effect.abs() > 1e-3, "{:?}", found[0]);
    }
}
