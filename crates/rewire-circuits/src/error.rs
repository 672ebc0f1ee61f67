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
}
