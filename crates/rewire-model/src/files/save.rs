//! Writes a model in Hugging Face layout.

use std::path::Path;

use burn::tensor::backend::Backend;
use rewire_store::{OutputDirectory, StoreError, Waiting};
use safetensors::tensor::{Dtype, TensorView};

use crate::files::load::tensors_to_save;
use crate::network::transformer::Transformer;

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The model's weights are processed, and the file format has no place for them.
    #[error("only a model with unprocessed weights can be saved; load the model without processing")]
    Processed,
    /// The tensors could not be serialized.
    #[error("cannot serialize the weights")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The configuration could not be serialized.
    #[error("cannot serialize the configuration")]
    Json(#[from] serde_json::Error),
    /// The files could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The names of the files that [`Transformer::save`] writes.
const NAMES: [&str; 2] = ["config.json", "model.safetensors"];

impl<B: Backend> Transformer<B> {
    /// Writes `config.json` and `model.safetensors` (float32) into a directory, and creates the
    /// directory if it is missing. Both files replace those of an earlier model together.
    ///
    /// # Errors
    /// [`SaveError::Processed`] if the weights are processed, and [`SaveError::Store`] if the
    /// directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), SaveError> {
        let files = self.to_files()?;
        let directory = OutputDirectory::take(directory, &NAMES, "saving a model", Waiting::Refuse)?;
        Ok(directory.publish(&files, &[])?)
    }

    /// Returns the names and contents of `config.json` and `model.safetensors` (float32).
    ///
    /// # Errors
    /// [`SaveError::Processed`] if the weights are processed.
    pub fn to_files(&self) -> Result<[(&'static str, Vec<u8>); 2], SaveError> {
        let tensors = tensors_to_save(self).ok_or(SaveError::Processed)?;
        let bytes: Vec<_> = tensors
            .iter()
            .map(|(name, shape, data)| {
                let data: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
                (name.clone(), shape.clone(), data)
            })
            .collect();
        let views =
            bytes.iter().map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        // transformers requires this entry.
        let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let weights = safetensors::serialize(views, Some(metadata))?;
        let config = (serde_json::to_string_pretty(&self.config().to_hugging_face())? + "\n").into_bytes();
        Ok([(NAMES[0], config), (NAMES[1], weights)])
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::config::{Architecture, TransformerConfig};
    use crate::files::model_files::ModelFiles;
    use crate::weights::processing::WeightProcessing;

    #[test]
    fn a_saved_model_loads_unchanged() {
        for config in Architecture::ALL.map(TransformerConfig::tiny) {
            let model = Transformer::<Flex>::random(&config, 0, &Default::default());
            let directory = tempfile::tempdir().unwrap();
            let into = directory.path().join("made/here");
            model.save(&into).unwrap();
            let loaded =
                Transformer::<Flex>::load(&ModelFiles::directory(&into).unwrap(), &Default::default()).unwrap();
            assert_eq!(loaded.config(), model.config());
            assert_eq!(tensors_to_save(&loaded), tensors_to_save(&model));
        }
    }

    #[test]
    fn saving_a_processed_model_is_refused() {
        let config = TransformerConfig::gpt2(1, 2, 16, 11, 6);
        let model = Transformer::<Flex>::random(&config, 0, &Default::default());
        let directory = tempfile::tempdir().unwrap();
        let into = directory.path().join("model");
        let refused = model.processed(WeightProcessing::default()).save(&into);
        assert!(matches!(refused, Err(SaveError::Processed)));
        assert!(!into.exists(), "a refused model left a directory");
    }
}
