//! Errors of the search for a circuit.

use rewire_analysis::AnalysisError;

/// Why no circuit was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitError {
    /// An analysis failed.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// Fewer than two heads were ranked: a circuit keeps some heads and removes others.
    #[error("a circuit needs at least two ranked heads, got {0}; rank more heads")]
    TooFewHeads(usize),
    /// There are too few heads to draw random sets of the circuit's size from.
    #[error("cannot draw random sets of {wanted} heads from {there}; give at least {wanted} heads")]
    TooFewToDraw {
        /// Number of heads in a set.
        wanted: usize,
        /// Number of heads to draw from.
        there: usize,
    },
    /// There is no prompt to measure on.
    #[error("there are no prompts to measure a circuit on; give at least one group of prompts")]
    NoPrompts,
    /// The whole model does not keep the share with the confidence that was asked for.
    #[error(
        "even the whole model does not keep {share} of the behavior with 95% confidence over these prompts; use more \
         prompts or a smaller share"
    )]
    Unfaithful {
        /// The share of the behavior.
        share: f64,
    },
    /// Two circuits belong to models of different shapes.
    #[error("the circuits are of different models; compare circuits of one model")]
    OtherModel,
    /// The sizes of circuits are no increasing shares.
    #[error("sizes of circuits are increasing shares of all edges, above 0 and at most 1, such as .001,.01,.1,1")]
    Sizes,
    /// The metric of the model is that of the empty circuit.
    #[error(
        "the mean of the metric on the clean run is that of the circuit without edges: there is no behavior that a \
         circuit could keep; use other prompts or another metric"
    )]
    NoBehavior,
}
