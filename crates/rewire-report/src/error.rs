//! Why results could not be written.

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The output directory cannot be written to.
    #[error(transparent)]
    Store(rewire_store::StoreError),
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tensors could not be serialized.
    #[error("cannot serialize the effects")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The description could not be serialized.
    #[error("cannot serialize the description")]
    Json(#[from] serde_json::Error),
    /// The CSV lines could not be serialized.
    #[error("cannot serialize the effects as CSV")]
    Csv(#[from] csv::Error),
}
