//! Errors of the studies.

use rewire_analysis::AnalysisError;
use rewire_circuits::CircuitError;
use rewire_model::ModelError;
use rewire_tasks::facts::FactsError;
use rewire_tasks::ioi::{DemoError, IoiError};
use rewire_tasks::{PairsError, TokenizerError};
use rewire_tensor::DeviceError;

/// The reason why a study has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// An analysis failed.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// A named step of the study failed.
    #[error("{step}")]
    Step {
        /// The name of the step.
        step: String,
        /// The error of the analysis.
        #[source]
        error: Box<AnalysisError>,
    },
    /// No circuit was found.
    #[error(transparent)]
    Circuit(CircuitError),
    /// Prompts for indirect object identification cannot be made.
    #[error(transparent)]
    Ioi(#[from] IoiError),
    /// A document's own prompts cannot be made.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The prompts of the factual-recall example cannot be made.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The prompts do not make valid pairs.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// A text cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model cannot be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A circuit of edges would be empty.
    #[error("no edge lies on a path from the input to the logits")]
    NoPath,
    /// The prompts do not suit the study, the tokenizer or the model.
    #[error("{0}")]
    Prompts(String),
}

impl StudyError {
    /// Returns whether passes of other processes are left ([`AnalysisError::PassesLeft`]).
    #[must_use]
    pub fn is_of_passes_left(&self) -> bool {
        match self {
            StudyError::Analysis(error) => matches!(error, AnalysisError::PassesLeft),
            StudyError::Step { error, .. } => matches!(**error, AnalysisError::PassesLeft),
            _ => false,
        }
    }

    /// Returns the device's fault if the device caused the error. After a fault this process can
    /// compute nothing more on the device.
    #[must_use]
    pub fn fault(&self) -> Option<&DeviceError> {
        match self {
            StudyError::Analysis(AnalysisError::Device(fault)) => Some(fault),
            StudyError::Step { error, .. } => match error.as_ref() {
                AnalysisError::Device(fault) => Some(fault),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<CircuitError> for StudyError {
    fn from(error: CircuitError) -> Self {
        match error {
            CircuitError::Analysis(error) => StudyError::Analysis(error),
            other => StudyError::Circuit(other),
        }
    }
}
