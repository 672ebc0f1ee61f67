//! The effects of all edges of a model.

use ndarray::{Array2, Array3, ArrayView2, Axis as Dimension};

use crate::edges::graph::{Edge, EdgeGraph};
use crate::effects::{Baselines, Method};
use crate::error::AnalysisError;
use crate::run::question::{Direction, Scale};

/// Effects of the edges of a model: exact, or estimated.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeEffects {
    /// The writers, readers and edges, in the order of the axes of [`values`](Self::values).
    pub graph: EdgeGraph,
    /// [`Method::ActivationPatching`] for exact effects, [`Method::AttributionPatching`] for
    /// estimates.
    pub method: Method,
    /// Which run the edges change.
    pub direction: Direction,
    /// The effect scale.
    pub scale: Scale,
    /// The metric's name.
    pub metric: &'static str,
    /// The metric on the unpatched runs.
    pub baselines: Baselines,
    /// As [`Outcome::vanished`](crate::effects::Outcome::vanished).
    pub vanished: Vec<usize>,
    /// The effects, `[prompt, writer, reader]`; 0 where there is no edge. A mean over prompts has a
    /// prompt axis of size 1.
    pub values: Array3<f32>,
}

impl EdgeEffects {
    /// Returns the mean over prompts, `[writer, reader]`.
    #[must_use]
    pub fn mean(&self) -> Array2<f32> {
        // Summed in float64 to keep the mean of many prompts as exact as each value.
        let mut sum = Array2::<f64>::zeros((self.graph.n_writers(), self.graph.n_readers()));
        for of_prompt in self.values.outer_iter() {
            sum.zip_mut_with(&of_prompt, |sum, value| *sum += f64::from(*value));
        }
        let prompts = self.values.len_of(Dimension(0)).max(1) as f64;
        sum.mapv(|total| (total / prompts) as f32)
    }

    /// Returns the effects of these edges, `[prompt, edge]`; a mean has a prompt axis of size 1.
    ///
    /// # Errors
    /// [`AnalysisError::NoSuchEdge`] for an edge that the model lacks.
    pub fn of(&self, edges: &[Edge]) -> Result<Array2<f32>, AnalysisError> {
        let places = edges.iter().map(|edge| self.graph.place(edge)).collect::<Result<Vec<_>, _>>()?;
        Ok(Array2::from_shape_fn((self.values.len_of(Dimension(0)), places.len()), |(prompt, edge)| {
            let [writer, reader] = places[edge];
            self.values[[prompt, writer, reader]]
        }))
    }

    /// Returns the `n` edges of largest absolute mean effect, largest first.
    #[must_use]
    pub fn largest(&self, n: usize) -> Vec<(Edge, f32)> {
        largest(&self.graph, &self.mean().view(), n)
    }
}

/// Returns the `n` edges of largest absolute effect `[writer, reader]`, largest first. Edges of
/// equal size keep the order of the graph.
#[must_use]
pub fn largest(graph: &EdgeGraph, effects: &ArrayView2<'_, f32>, n: usize) -> Vec<(Edge, f32)> {
    let mut all: Vec<([usize; 2], f32)> = graph.places().map(|place| (place, effects[place])).collect();
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    all.truncate(n);
    all.into_iter().map(|(place, effect)| (graph.edge(place), effect)).collect()
}
