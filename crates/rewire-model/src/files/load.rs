//! Loads a [`Transformer`] from Hugging Face model files, and converts it back.

use std::path::Path;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::config::TransformerConfig;
use crate::error::ModelError;
use crate::files::layout::{self, FileTensor};
use crate::files::model_files::ModelFiles;
use crate::files::tensors::{Contents, Weights};
use crate::files::warning::LoadWarning;
use crate::network::matrix::Matrix;
use crate::network::transformer::Transformer;
use crate::weights::init::{WeightSource, on_device};
use crate::weights::weight_name::{BLOCK_PARTS, WeightName};

/// Where the matrices of a loaded model are. Both give the same numbers, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightStorage {
    /// In memory, as float32: 4 bytes per weight.
    #[default]
    Float32,
    /// In the model's files, in the type that they have there: 2 bytes per weight in float16 and
    /// bfloat16, and fewer in most GGUF files. The files are mapped, so that the system can drop
    /// their pages from memory and read them again. A matrix is converted to float32, and
    /// processed, each time that it is used, and dropped afterwards.
    ///
    /// PyTorch checkpoints are refused.
    Stored,
}

/// The weights of a model's files.
struct FromFiles<'w, 'a, B: Backend> {
    weights: &'w mut Weights<'a>,
    storage: WeightStorage,
    device: &'w B::Device,
}

impl<B: Backend> WeightSource<B> for FromFiles<'_, '_, B> {
    type Error = ModelError;

    fn values(&mut self, part: WeightName, layer: usize) -> Result<Tensor<B, 1>, ModelError> {
        Ok(on_device(self.weights.take(part, layer)?, self.device))
    }

    fn matrix(&mut self, config: &TransformerConfig, part: WeightName, layer: usize) -> Result<Matrix<B>, ModelError> {
        match self.storage {
            WeightStorage::Float32 => {
                let values = self.values(part, layer)?;
                Ok(Matrix::in_memory(values.reshape(layout::matrix_shape(config, part))))
            }
            WeightStorage::Stored => Ok(Matrix::in_file(self.weights.take_stored(part, layer)?, self.device)),
        }
    }
}

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
        Self::load_in(files, WeightStorage::Float32, device)
    }

    /// Loads a model as [`load_with_warnings`](Self::load_with_warnings) does, with its matrices in
    /// memory or in their files. Even if they stay in the files, each is read once, to check that
    /// its numbers are finite.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`ModelError::StoredCheckpoint`] for a PyTorch checkpoint whose
    /// weights are to stay in the file.
    pub fn load_in(
        files: &ModelFiles,
        storage: WeightStorage,
        device: &B::Device,
    ) -> Result<(Self, Vec<LoadWarning>), ModelError> {
        let config = files.config()?;
        let open = files.open_weights()?;
        let contents: Vec<(&Path, Contents<'_>)> = open.iter().map(|(path, file)| (*path, file.contents())).collect();
        let mut warnings = Vec::new();
        let mut weights = Weights::read(&config, &contents, &mut warnings)?;
        warnings.extend(weights.take_tied()?);
        let model = Transformer::assemble(&config, FromFiles { weights: &mut weights, storage, device })?;
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
    parts.extend(outside(&[WeightName::FinalGain, WeightName::FinalBias, WeightName::WU, WeightName::BU]));
    let mut saved: Vec<SavedTensor> = Vec::new();
    for (part, layer) in parts.into_iter().filter(|(part, _)| layout::is_stored(config, *part)) {
        let mut data = layout::to_file(config, part, model.part(part, layer)?);
        for tensor in layout::file_tensors(config, part, layer) {
            let rest = data.split_off(tensor.range().len());
            save_rows(&mut saved, tensor, data);
            data = rest;
        }
    }
    Some(saved)
}

/// Adds the rows of a tensor that a weight has. Rows that no weight has are zeros.
fn save_rows(saved: &mut Vec<SavedTensor>, tensor: FileTensor, rows: Vec<f32>) {
    let range = tensor.range();
    let FileTensor { name, shape, .. } = tensor;
    let len = shape.iter().product();
    if range.len() == len {
        return saved.push((name, shape, rows));
    }
    let begun = saved.iter().position(|(of, ..)| *of == name).unwrap_or_else(|| {
        saved.push((name, shape, vec![0.0; len]));
        saved.len() - 1
    });
    saved[begun].2[range].copy_from_slice(&rows);
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Int;
    use rewire_tensor::Precision;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::config::Architecture;
    use crate::network::run::{LastBlock, ReadPositions, Readout, Run};
    use crate::weights::processing::WeightProcessing;

    type Tracked = Autodiff<Flex>;

    /// Returns the files of a random model whose numbers have this type.
    fn files(config: &TransformerConfig, dtype: Dtype) -> ModelFiles {
        let model = Transformer::<Flex>::random(config, 0, &Default::default());
        let bytes = |values: Vec<f32>| -> Vec<u8> {
            match dtype {
                Dtype::F16 => values.into_iter().flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                Dtype::BF16 => values.into_iter().flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                _ => values.into_iter().flat_map(f32::to_le_bytes).collect(),
            }
        };
        let tensors = tensors_to_save(&model).unwrap().into_iter();
        let tensors: Vec<_> = tensors.map(|(name, shape, values)| (name, shape, bytes(values))).collect();
        let view = |(name, shape, bytes): &'static (String, Vec<usize>, Vec<u8>)| {
            (name, TensorView::new(dtype, shape.clone(), bytes).unwrap())
        };
        let tensors: &'static [_] = tensors.leak();
        let weights = safetensors::serialize(tensors.iter().map(view), None).unwrap();
        let config = config.to_hugging_face().to_string().into_bytes();
        ModelFiles::embedded("given", config.leak(), weights.leak(), None)
    }

    /// Returns the model with its weights in memory, and with its weights in the files.
    fn both<B: Backend>(files: &ModelFiles, processing: WeightProcessing) -> [Transformer<B>; 2] {
        [WeightStorage::Float32, WeightStorage::Stored]
            .map(|storage| Transformer::load_in(files, storage, &Default::default()).unwrap().0.processed(processing))
    }

    fn tokens<B: Backend>(model: &Transformer<B>) -> Tensor<B, 2, Int> {
        model.tokens(&[vec![3, 1, 4, 1], vec![5, 9, 2, 6]]).unwrap()
    }

    fn bits<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<u32> {
        tensor.into_data().iter::<f32>().map(f32::to_bits).collect()
    }

    /// Returns the bits of every activation, of all logits, and of some logits of a run whose last
    /// block computes one position.
    fn results<B: Backend>(model: &Transformer<B>) -> Vec<Vec<u32>> {
        let (logits, cache) = model.run_with_cache(tokens(model)).unwrap();
        let activation = |point| {
            let any = cache.any(point).unwrap();
            bits(any.reshape([any.dims().iter().product()]))
        };
        let mut found: Vec<Vec<u32>> = cache.points().map(activation).collect();
        found.push(bits(logits));
        let readout = Readout { positions: ReadPositions::Each(vec![3, 2]), columns: Some(vec![7, 0, 7, 11]) };
        let run = Run::tokens(tokens(model)).with_readout(readout).with_last_block(LastBlock::ReadPositions);
        found.push(bits(model.forward(run, ()).unwrap()));
        found
    }

    #[test]
    fn weights_in_files_give_the_same_bits() {
        for config in Architecture::ALL.map(TransformerConfig::tiny) {
            for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
                let files = files(&config, dtype);
                for processing in [WeightProcessing::none(), WeightProcessing::default()] {
                    let [memory, stored] = both::<Flex>(&files, processing);
                    let of = format!("{:?}, {dtype:?}, {processing:?}", config.architecture);
                    assert!(results(&memory) == results(&stored), "{of}");
                    let weights = |model: &Transformer<Flex>| {
                        let direction = model.logit_direction(&[vec![3]], &[vec![1, 2]], crate::FinalNormGain::Applied);
                        let layers = (0..config.n_layers).flat_map(|layer| {
                            let inputs = [crate::HeadInput::Q, crate::HeadInput::K, crate::HeadInput::V];
                            let inputs = inputs.map(|input| bits(model.w_head_input(layer, input)));
                            let [(w_in, b_in), (w_out, b_out)] = [model.mlp_in(layer), model.mlp_out(layer)];
                            let mlp = [bits(w_in), bits(b_in), bits(w_out), bits(b_out)];
                            let gate = model.mlp_gate(layer).map(|(w, _)| bits(w));
                            [bits(model.w_o(layer)), bits(model.b_o(layer)), bits(model.neurons_at_zero(layer))]
                                .into_iter()
                                .chain(inputs)
                                .chain(mlp)
                                .chain(gate)
                        });
                        let outside = [bits(model.w_e()), bits(model.unembedding()), bits(direction)];
                        layers.chain(outside).collect::<Vec<_>>()
                    };
                    assert!(weights(&memory) == weights(&stored), "weights of {of}");
                }
            }
        }
    }

    #[test]
    fn short_numbers_of_weights_in_files_are_the_same_bits() {
        for architecture in [Architecture::Gpt2, Architecture::Llama] {
            let files = files(&TransformerConfig::tiny(architecture), Dtype::F32);
            let models = both::<Flex>(&files, WeightProcessing::default());
            let [memory, stored] = models.map(|model| model.to_precision(Precision::BFloat16));
            assert_eq!(stored.precision(), Precision::BFloat16);
            assert!(results(&memory) == results(&stored), "{architecture:?}");
        }
    }

    /// Returns the gradient of the sum of the squared logits with respect to the stream before the
    /// first block.
    fn gradient(model: &Transformer<Tracked>) -> Vec<u32> {
        let (_, cache) = model.run_with_cache(tokens(model)).unwrap();
        let stream: Tensor<Tracked, 3> = cache.block(0, rewire_hooks::Site::ResidPre).unwrap();
        let stream = stream.detach().require_grad();
        let readout = Readout { positions: ReadPositions::All, columns: Some(vec![2, 5]) };
        let logits = model.forward(Run::from_residual(0, stream.clone()).with_readout(readout), ()).unwrap();
        let gradients = (logits.clone() * logits).sum().backward();
        bits(stream.grad(&gradients).unwrap())
    }

    #[test]
    fn gradients_through_weights_in_files_are_the_same_bits() {
        for config in Architecture::ALL.map(TransformerConfig::tiny) {
            let files = files(&config, Dtype::BF16);
            for processing in [WeightProcessing::none(), WeightProcessing::default()] {
                let [memory, stored] = both::<Tracked>(&files, processing).map(|model| gradient(&model));
                assert!(memory == stored, "{:?}, {processing:?}", config.architecture);
                assert!(memory.iter().any(|bits| *bits != 0));
            }
        }
    }
}
