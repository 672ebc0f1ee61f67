//! Writing a trained model as Hugging Face does.

use burn::tensor::backend::Backend;
use rewire_model::{Transformer, tensors_to_save};
use rewire_store::{OutputDirectory, StoreError};
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
    /// The files could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names of the files that [`save`] writes.
pub const MODEL_FILES: [&str; 4] = ["config.json", "model.safetensors", "tokenizer.json", "training.json"];

/// Writes `config.json`, `model.safetensors` (float32), `tokenizer.json` and `training.json` into
/// `directory`. They replace the files of a former model together.
///
/// # Errors
/// [`SaveError`].
pub fn save<B: Backend>(
    directory: &OutputDirectory,
    model: &Transformer<B>,
    tokenizer_json: &str,
    manifest: &Manifest,
) -> Result<(), SaveError> {
    let [config, weights] = config_and_weights(model)?;
    let manifest = (serde_json::to_string_pretty(manifest)? + "\n").into_bytes();
    let [a, b, c, d] = MODEL_FILES;
    let files = [(a, config), (b, weights), (c, tokenizer_json.as_bytes().to_vec()), (d, manifest)];
    Ok(directory.publish(&files, &[])?)
}

/// Writes `config.json` and `model.safetensors` (float32) into `directory`.
///
/// # Errors
/// [`SaveError`].
pub fn save_weights<B: Backend>(directory: &OutputDirectory, model: &Transformer<B>) -> Result<(), SaveError> {
    let [config, weights] = config_and_weights(model)?;
    Ok(directory.publish(&[(MODEL_FILES[0], config), (MODEL_FILES[1], weights)], &[])?)
}

/// The contents of `config.json` and `model.safetensors`.
fn config_and_weights<B: Backend>(model: &Transformer<B>) -> Result<[Vec<u8>; 2], SaveError> {
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
    Ok([(serde_json::to_string_pretty(&config)? + "\n").into_bytes(), weights])
}
