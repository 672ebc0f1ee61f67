//! Everything that can go wrong, as one error.

use rewire_analysis::AnalysisError;
use rewire_hooks::{CacheError, PatchError};
use rewire_model::ModelError;
use rewire_report::ReportError;
use rewire_tasks::{PairsError, PairsFileError, TokenizerError};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be found, loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer, or a text that it cannot tokenize.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Text for a model without a tokenizer.
    #[error("the model {model} has no tokenizer.json; give token ids")]
    NoTokenizer {
        /// The model.
        model: String,
    },
    /// Prompt pairs that cannot be run.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// A file of prompt pairs.
    #[error(transparent)]
    PairsFile(#[from] PairsFileError),
    /// An analysis was refused, or failed.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// An activation was not where it should be.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A patch was not applied.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// Results could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}
