//! Tables and maps of the effects of edges.

use ndarray::Array2;
use rewire_analysis::edges::{EdgeEffects, EdgeGraph, Reader, Writer};

use crate::names::numbered;
use crate::numbers::number;

/// Returns table rows of the `n` edges of largest absolute mean effect: the edge's name and its
/// effect.
#[must_use]
pub fn largest(effects: &EdgeEffects, n: usize) -> Vec<Vec<String>> {
    effects.largest(n).into_iter().map(|(edge, effect)| vec![edge.to_string(), number(effect)]).collect()
}

/// A map of the largest edge between each pair of layers: the groups of writers and of readers, and
/// the effect of the edge, `[reader, writer]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerMap {
    /// Names of the groups of writers: `input`, `heads L0`, `MLP L0`.
    pub writers: Vec<String>,
    /// Names of the groups of readers: `heads L0`, `MLP L0`, `logits`.
    pub readers: Vec<String>,
    /// The effect of the edge of largest absolute effect between two groups, `[reader, writer]`; 0
    /// where there is no edge.
    pub effects: Array2<f32>,
}

/// Returns the map of the largest edges between layers, from mean effects `[writer, reader]`.
#[must_use]
pub fn by_layer(graph: &EdgeGraph, effects: &Array2<f32>) -> LayerMap {
    let n_layers = graph.n_layers();
    let pairs = numbered("heads L", n_layers).into_iter().zip(numbered("MLP L", n_layers));
    let groups: Vec<String> = pairs.flat_map(|(heads, mlp)| [heads, mlp]).collect();
    let writers: Vec<String> = ["input".to_owned()].into_iter().chain(groups.clone()).collect();
    let readers: Vec<String> = groups.into_iter().chain(["logits".to_owned()]).collect();
    let mut map = Array2::<f32>::zeros((readers.len(), writers.len()));
    for place in graph.places() {
        let edge = graph.edge(place);
        let writer = match edge.writer {
            Writer::Input => 0,
            Writer::Head(head) => 1 + 2 * head.layer,
            Writer::Mlp(layer) => 2 + 2 * layer,
        };
        let reader = match edge.reader {
            Reader::Head(head, _) => 2 * head.layer,
            Reader::Mlp(layer) => 2 * layer + 1,
            Reader::Logits => 2 * n_layers,
        };
        let largest = &mut map[[reader, writer]];
        if effects[place].abs() > largest.abs() {
            *largest = effects[place];
        }
    }
    LayerMap { writers, readers, effects: map }
}

#[cfg(test)]
mod tests {
    use rewire_model::TransformerConfig;

    use super::*;

    #[test]
    fn a_cell_of_the_map_has_the_largest_edge_between_two_layers() {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(2, 2, 8, 11, 6));
        let mut effects = Array2::zeros((graph.n_writers(), graph.n_readers()));
        for (name, effect) in [("a0.h0->a1.h1<q>", 0.25), ("a0.h1->a1.h0<v>", -0.5), ("m1->logits", 1.0)] {
            effects[graph.place(&name.parse().unwrap()).unwrap()] = effect;
        }
        let map = by_layer(&graph, &effects);
        assert_eq!(map.writers, ["input", "heads L0", "MLP L0", "heads L1", "MLP L1"]);
        assert_eq!(map.readers, ["heads L0", "MLP L0", "heads L1", "MLP L1", "logits"]);
        assert_eq!((map.effects[[2, 1]], map.effects[[4, 4]]), (-0.5, 1.0));
        assert_eq!(map.effects.iter().filter(|effect| **effect != 0.0).count(), 2);
    }
}
