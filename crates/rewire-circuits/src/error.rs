//! What can go wrong.

use rewire_analysis::AnalysisError;

/// Why no circuit was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitError {
    /// An analysis failed.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// Fewer than two heads were ranked: a circuit keeps some heads and removes others.
    #[error("a circuit is chosen among at least two heads, and {0} were ranked")]
    TooFewHeads(usize),
    /// Too few heads to draw random sets of the circuit's size from.
    #[error("random sets of {wanted} heads need as many to draw from, and there are {there}")]
    TooFewToDraw {
        /// Heads in a set.
        wanted: usize,
        /// Heads that there are.
        there: usize,
    },
    /// There is no prompt to measure on.
    #[error("a circuit is measured on prompts, and there are none")]
    NoPrompts,
}
