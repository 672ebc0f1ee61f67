//! Writes a trained model in Hugging Face layout.

use burn::tensor::backend::Backend;
use rewire_model::{SaveError as ModelSaveError, Transformer};
use rewire_store::{OutputDirectory, StoreError};

use crate::manifest::Manifest;

/// Why a trained model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The model could not be serialized.
    #[error(transparent)]
    Model(#[from] ModelSaveError),
    /// The manifest could not be serialized.
    #[error("cannot serialize the manifest")]
    Json(#[from] serde_json::Error),
    /// The files could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names of the files that [`save`] writes.
pub const MODEL_FILES: [&str; 4] = ["config.json", "model.safetensors", "tokenizer.json", "training.json"];

/// Writes `config.json`, `model.safetensors` (float32), `tokenizer.json` and `training.json` into
/// `directory`. All four files are replaced together.
///
/// # Errors
/// [`SaveError`].
pub fn save<B: Backend>(
    directory: &OutputDirectory,
    model: &Transformer<B>,
    tokenizer_json: &str,
    manifest: &Manifest,
) -> Result<(), SaveError> {
    let [config, weights] = model.to_files()?;
    let manifest = (serde_json::to_string_pretty(manifest)? + "\n").into_bytes();
    let [_, _, c, d] = MODEL_FILES;
    let files = [config, weights, (c, tokenizer_json.as_bytes().to_vec()), (d, manifest)];
    Ok(directory.publish(&files, &[])?)
}
