//! The error of this crate: one variant for each crate that can fail.

use rewire_analysis::AnalysisError;
use rewire_hooks::{CacheError, PatchError};
use rewire_model::ModelError;
use rewire_report::ReportError;
use rewire_tasks::{PairsError, PairsFileError, TokenizerError};

/// An error of a model, a tokenizer, prompt pairs, an analysis or a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be found, loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer could not be read, or a text could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model has no tokenizer, and the input is text.
    #[error(
        "the model {model} has no tokenizer.json, nor both vocab.json and merges.txt; give token ids instead of text"
    )]
    NoTokenizer {
        /// The model's name.
        model: String,
    },
    /// The prompt pairs cannot be run.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// A file of prompt pairs could not be read.
    #[error(transparent)]
    PairsFile(#[from] PairsFileError),
    /// An analysis refused its input, or failed.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// An activation is not in the cache, or has another size.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A patch was not applied to the run.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// Results could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}
