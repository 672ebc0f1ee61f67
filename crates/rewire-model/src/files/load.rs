//! Loads a [`Transformer`] from Hugging Face model files, and converts it back.

use std::path::Path;

use burn::tensor::backend::Backend;

use crate::error::ModelError;
use crate::files::layout;
use crate::files::model_files::ModelFiles;
use crate::files::tensors::{Contents, Weights};
use crate::files::warning::LoadWarning;
use crate::network::transformer::Transformer;
use crate::weights::init::on_device;
use crate::weights::weight_name::{BLOCK_PARTS, WeightName};

impl<B: Backend> Transformer<B> {
    /// Loads a model with the weights as its files have them. [`processed`](Transformer::processed)
    /// folds and centers them.
    ///
    /// Files are memory-mapped and converted to float32 one tensor at a time. Loading therefore
    /// needs little more memory than the model in float32.
    ///
    /// # Errors
    /// [`ModelError`], which names the file and the tensor, unless the files hold a complete model
    /// of a supported architecture with finite weights. Doubtful files load: see
    /// [`load_with_warnings`](Self::load_with_warnings).
    pub fn load(files: &ModelFiles, device: &B::Device) -> Result<Self, ModelError> {
        Self::load_with_warnings(files, device).map(|(model, _)| model)
    }

    /// Loads a model as [`load`](Self::load) does, and returns what is doubtful about its files.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_warnings(files: &ModelFiles, device: &B::Device) -> Result<(Self, Vec<LoadWarning>), ModelError> {
        let config = files.config()?;
        let open = files.open_weights()?;
        let contents: Vec<(&Path, Contents<'_>)> = open.iter().map(|(path, file)| (*path, file.contents())).collect();
        let mut warnings = Vec::new();
        let mut weights = Weights::read(&config, &contents, &mut warnings)?;
        warnings.extend(weights.take_tied()?);
        let model = Transformer::assemble(&config, |part, layer| {
            Ok::<_, ModelError>(on_device(weights.take(part, layer)?, device))
        })?;
        weights.finish()?;
        Ok((model, warnings))
    }
}

/// One tensor to save: its name, shape and float32 values in the file's layout.
pub type SavedTensor = (String, Vec<usize>, Vec<f32>);

/// Returns the model's weights in file layout, for a `model.safetensors` that [`Transformer::load`]
/// reads back. Returns `None` for a processed model, because the file format has no place for
/// folded weights.
#[must_use]
pub fn tensors_to_save<B: Backend>(model: &Transformer<B>) -> Option<Vec<SavedTensor>> {
    let config = model.config();
    let outside = |parts: &[WeightName]| parts.iter().map(|&part| (part, 0)).collect::<Vec<_>>();
    let mut parts = outside(&[WeightName::WE, WeightName::WPos]);
    parts.extend((0..config.n_layers).flat_map(|layer| BLOCK_PARTS.map(|part| (part, layer))));
    parts.extend(outside(&[WeightName::FinalGain, WeightName::FinalBias, WeightName::WU]));
    let mut saved = Vec::new();
    for (part, layer) in parts.into_iter().filter(|(part, _)| layout::is_stored(config, *part)) {
        let mut data = layout::to_file(config, part, model.part(part, layer)?);
        for (name, shape) in layout::file_tensors(config, part, layer) {
            let rest = data.split_off(shape.iter().product());
            saved.push((name, shape, data));
            data = rest;
        }
    }
    Some(saved)
}
