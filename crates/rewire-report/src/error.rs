//! Why results could not be written.

use std::path::PathBuf;

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The output directory cannot be made or written to.
    #[error("cannot write to the output directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tensors could not be laid out.
    #[error("cannot serialize the effects: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The description could not be laid out.
    #[error("cannot serialize the description: {0}")]
    Json(#[from] serde_json::Error),
    /// The lines could not be laid out.
    #[error("cannot serialize the effects: {0}")]
    Csv(#[from] csv::Error),
}
