//! The shape of the model that a circuit file is for.

use rewire_analysis::edges::{BlockOrder, EdgeGraph};
use rewire_model::TransformerConfig;
use serde::{Deserialize, Serialize};

/// Most pairs of a writer and a reader of a model that a file may name. Llama-3.1-405B has 300
/// million of them.
const MOST_PAIRS: usize = 1 << 29;

/// The shape of a model, as the field `cfg` of a circuit file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitShape {
    /// Number of layers.
    pub n_layers: usize,
    /// Number of heads of a layer.
    pub n_heads: usize,
    /// Whether the attention and the MLP of a layer read the same residual stream.
    pub parallel_attn_mlp: bool,
    /// Width of the residual stream.
    pub d_model: usize,
}

/// A field in which two shapes differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeDifference {
    /// The field, in words, with its name in the file.
    pub field: &'static str,
    /// The values, of the first shape and of the second.
    pub values: [String; 2],
}

impl CircuitShape {
    /// Returns the shape of a model.
    #[must_use]
    pub fn of(config: &TransformerConfig) -> Self {
        Self {
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            parallel_attn_mlp: config.parallel_block,
            d_model: config.d_model,
        }
    }

    /// Returns the first field in which another shape differs.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<ShapeDifference> {
        let fields = [
            ("number of layers (n_layers)", [self, other].map(|shape| shape.n_layers.to_string())),
            ("number of heads (n_heads)", [self, other].map(|shape| shape.n_heads.to_string())),
            ("width (d_model)", [self, other].map(|shape| shape.d_model.to_string())),
            ("parallel block (parallel_attn_mlp)", [self, other].map(|shape| shape.parallel_attn_mlp.to_string())),
        ];
        let differs = |(field, values): (&'static str, [String; 2])| {
            (values[0] != values[1]).then_some(ShapeDifference { field, values })
        };
        fields.into_iter().find_map(differs)
    }

    /// Returns the graph of the model. `None` for a shape without heads, and for one that no model
    /// has.
    #[must_use]
    pub fn graph(&self) -> Option<EdgeGraph> {
        let writers = self.n_heads.checked_add(1)?.checked_mul(self.n_layers)?.checked_add(1)?;
        let readers = self.n_heads.checked_mul(3)?.checked_add(1)?.checked_mul(self.n_layers)?.checked_add(1)?;
        let is_possible = self.n_heads > 0 && writers.checked_mul(readers).is_some_and(|pairs| pairs <= MOST_PAIRS);
        let block = if self.parallel_attn_mlp { BlockOrder::Parallel } else { BlockOrder::Sequential };
        is_possible.then(|| EdgeGraph::of_shape(self.n_layers, self.n_heads, block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_of_a_shape_is_that_of_its_model() {
        for config in [TransformerConfig::gpt2(3, 4, 16, 11, 6), TransformerConfig::neox(2, 2, 8, 11, 6)] {
            assert_eq!(CircuitShape::of(&config).graph(), Some(EdgeGraph::new(&config)));
        }
    }

    #[test]
    fn a_shape_that_no_model_has_has_no_graph() {
        let shape = |n_layers, n_heads| CircuitShape { n_layers, n_heads, parallel_attn_mlp: false, d_model: 8 };
        assert!(
            [shape(usize::MAX, 2), shape(2, usize::MAX), shape(100_000, 100), shape(2, 0)]
                .iter()
                .all(|shape| shape.graph().is_none())
        );
    }
}
