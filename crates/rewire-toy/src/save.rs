//! Writing a trained model as Hugging Face does.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use rewire_model::{Transformer, tensors_to_save};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::Manifest;

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The model's weights were processed, and have no place in a file.
    #[error("only a model with unprocessed weights can be saved")]
    Processed,
    /// The tensors could not be laid out.
    #[error("cannot serialize the weights: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The manifest or configuration could not be laid out.
    #[error("cannot serialize the manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes `config.json`, `model.safetensors` (float32), `tokenizer.json` and `training.json` into `directory`; each file is
/// replaced only once its successor is whole.
///
/// # Errors
/// [`SaveError`].
pub fn save<B: Backend>(
    directory: &Path,
    model: &Transformer<B>,
    tokenizer_json: &str,
    manifest: &Manifest,
) -> Result<(), SaveError> {
    save_weights(directory, model)?;
    write(directory, "tokenizer.json", tokenizer_json.as_bytes())?;
    write(directory, "training.json", (serde_json::to_string_pretty(manifest)? + "\n").as_bytes())
}

/// Writes `config.json` and `model.safetensors` (float32) into `directory`, which is made if need be.
///
/// # Errors
/// [`SaveError`].
pub fn save_weights<B: Backend>(directory: &Path, model: &Transformer<B>) -> Result<(), SaveError> {
    let tensors = tensors_to_save(model).ok_or(SaveError::Processed)?;
    let bytes: Vec<_> = tensors
        .iter()
        .map(|(name, shape, data)| {
            let data: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.clone(), shape.clone(), data)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    // The field's loaders look for this note.
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = safetensors::serialize(views, Some(metadata))?;

    let config: Value = model.config().to_hugging_face();
    std::fs::create_dir_all(directory).map_err(|source| SaveError::Write { path: directory.into(), source })?;
    write(directory, "config.json", (serde_json::to_string_pretty(&config)? + "\n").as_bytes())?;
    write(directory, "model.safetensors", &weights)
}

fn write(directory: &Path, file: &str, contents: &[u8]) -> Result<(), SaveError> {
    let path = directory.join(file);
    let part = directory.join(format!(".{file}.part"));
    let written = std::fs::write(&part, contents).and_then(|()| std::fs::rename(&part, &path));
    written.map_err(|source| SaveError::Write { path, source })
}
