//! How complete attributions along lines are.

use ndarray::ArrayD;

use crate::effects::Outcome;
use crate::node::kind::NodeKind;

/// What to do with a line whose completeness gap stays larger than the tolerance allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapPolicy {
    /// Return [`AnalysisError::Incomplete`](crate::AnalysisError::Incomplete).
    Refuse,
    /// Return the attributions. [`Completeness::missed`] lists the lines.
    Report,
}

/// How complete the attributions of one kind of node are.
#[derive(Debug, Clone, PartialEq)]
pub struct Completeness {
    /// The kind of node.
    pub kind: NodeKind,
    /// Sum of attributions minus the change of the metric, `[prompt, layer]`; with
    /// `LineScope::Node`, `[prompt, layer, unit]` for heads and neurons.
    pub gap: ArrayD<f32>,
    /// Change of the metric from the clean end of the line to the other end, in the shape of
    /// [`gap`](Self::gap).
    pub change: ArrayD<f32>,
    /// Largest absolute gap that the tolerance allows, in the shape of [`gap`](Self::gap).
    pub allowed: ArrayD<f32>,
    /// Final number of quadrature nodes by layer: the largest over prompts and lines.
    pub steps: Vec<usize>,
}

/// A prompt whose attributions along a line miss the tolerance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Missed {
    /// The prompt, counted from 0.
    pub prompt: usize,
    /// The layer of the line.
    pub layer: usize,
    /// Sum of the attributions minus the change of the metric.
    pub gap: f32,
    /// Change of the metric along the line.
    pub change: f32,
    /// Largest absolute gap that the tolerance allows.
    pub allowed: f32,
}

impl Completeness {
    /// Returns the prompts and layers whose gap is larger than the tolerance allows, the largest
    /// gap first. There are none with [`GapPolicy::Refuse`].
    #[must_use]
    pub fn missed(&self) -> Vec<Missed> {
        let places = self.gap.indexed_iter().zip(&self.change).zip(&self.allowed);
        let missed = places.filter(|(((_, gap), _), allowed)| gap.abs() > **allowed);
        let mut missed: Vec<Missed> = missed
            .map(|(((place, &gap), &change), &allowed)| Missed {
                prompt: place[0],
                layer: place[1],
                gap,
                change,
                allowed,
            })
            .collect();
        missed.sort_by(|a, b| b.gap.abs().total_cmp(&a.gap.abs()));
        missed
    }
}

/// Attributions, and how complete they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Integrated {
    /// The attributions, in the effect scale of the question.
    pub outcome: Outcome,
    /// The completeness of each kind, in the order of the kinds and in the effect scale of the
    /// question.
    pub completeness: Vec<Completeness>,
}
