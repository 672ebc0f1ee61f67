//! Circuits that a found circuit is compared with: random circuits of its size.

use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_analysis::edges::EdgeSet;

use crate::selection::{EdgeScores, Ranking};

/// Returns `n` random circuits of as many edges as `circuit`, pruned. Each grows from the logits as
/// the greedy search with random scores does: random edges alone would leave nothing after pruning.
#[must_use]
pub fn random_circuits(circuit: &EdgeSet, n: usize, seed: u64) -> Vec<EdgeSet> {
    let graph = *circuit.graph();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |_| {
        let values =
            Array2::from_shape_simple_fn((graph.n_writers(), graph.n_readers()), || (rng.next_u32() >> 8) as f32);
        EdgeScores { graph, values }.greedy(circuit.len(), Ranking::Signed).pruned()
    };
    (0..n).map(&mut draw).collect()
}

#[cfg(test)]
mod tests {
    use rewire_analysis::edges::EdgeGraph;
    use rewire_model::TransformerConfig;

    use super::*;

    #[test]
    fn random_circuits_differ_and_have_paths_to_the_logits() {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(3, 4, 16, 11, 6));
        let mut circuit = EdgeSet::empty(graph);
        graph.places().take(120).for_each(|place| circuit.set(place, true));
        let drawn = random_circuits(&circuit, 5, 3);
        assert_eq!(drawn, random_circuits(&circuit, 5, 3));
        assert!(drawn.iter().all(|set| !set.is_empty() && set.len() <= 120));
        assert!((1..5).all(|i| drawn[i] != drawn[0]));
    }
}
