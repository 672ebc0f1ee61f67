//! The tensors in a model's weight files. Each name must be unique, and each shape must match the
//! configuration.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use pytorch_reader::Tensor;
use rewire_gguf::{NamedTensor, StoredRows, TensorType};
use rewire_input::{cut, repeated_key};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use crate::config::TransformerConfig;
use crate::error::ModelError;
use crate::files::bytes::Bytes;
use crate::files::layout::{self, FileTensor};
use crate::files::stored::{StoredMatrix, StoredTensor};
use crate::files::stored_rows::{StoredPart, stored_matrix};
use crate::files::warning::LoadWarning;
use crate::files::{checkpoint, gguf, prefix};
use crate::weights::weight_name::WeightName;

/// Maximum size in bytes of a safetensors header. Those of GPT-2 XL and Pythia-6.9B have fewer than
/// 100,000 bytes.
const MOST_HEADER_BYTES: u64 = 16 << 20;

/// Reads the header of a file, and refuses a header that names a tensor twice: the safetensors
/// crate would keep either one.
fn read_header<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, ModelError> {
    let refuse = |reason: String| ModelError::Safetensors { path: path.into(), reason };
    let length = bytes.first_chunk().map_or(0, |&length| u64::from_le_bytes(length));
    if length > MOST_HEADER_BYTES {
        return Err(refuse(format!("its header claims {length} bytes; at most {MOST_HEADER_BYTES} are allowed")));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| unreadable(path, &e))?;
    match repeated_key(&bytes[8..][..length as usize]) {
        None => Ok(file),
        Some(name) => {
            let [first, second] = [(); 2].map(|()| path.into());
            Err(ModelError::RepeatedTensor { first, first_name: name.clone(), second, second_name: name })
        }
    }
}

fn unreadable(path: &Path, error: &SafeTensorError) -> ModelError {
    let reason = match error {
        SafeTensorError::MetadataIncompleteBuffer => "it ends before the last tensor ends".to_owned(),
        SafeTensorError::HeaderTooSmall => "it is shorter than a header".to_owned(),
        SafeTensorError::InvalidHeaderLength => "it ends inside its header".to_owned(),
        other => cut(&other.to_string()),
    };
    ModelError::Safetensors { path: path.into(), reason }
}

/// The contents of an open weight file.
#[derive(Clone, Copy)]
pub(crate) enum Contents<'a> {
    Safetensors(&'a Arc<Bytes>),
    Checkpoint(&'a [Tensor]),
    Gguf(&'a Arc<Bytes>),
}

/// The tensors of a model's files.
pub(crate) struct Weights<'a> {
    config: &'a TransformerConfig,
    tensors: BTreeMap<String, Stored<'a>>,
    first: &'a Path,
}

/// A tensor, its file, and its name in that file.
struct Stored<'a> {
    path: &'a Path,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    values: Values<'a>,
    /// Whether the loader has read it.
    is_taken: bool,
}

/// The values of a tensor, in memory or not yet read.
enum Values<'a> {
    Mapped(&'a [u8], &'a Arc<Bytes>),
    InCheckpoint(&'a Tensor),
    InGguf(NamedTensor<'a>, &'a Arc<Bytes>),
}

impl Stored<'_> {
    /// Returns the values, or `None` if the tensor has another type than F32, F16 or BF16.
    fn to_f32(&self) -> Result<Option<Vec<f32>>, ModelError> {
        match (&self.values, self.dtype) {
            (Values::InGguf(tensor, _), _) => Ok(Some(tensor.to_f32())),
            (Values::Mapped(bytes, _), dtype) => Ok(to_f32(dtype, bytes)),
            (Values::InCheckpoint(tensor), dtype @ (Dtype::F32 | Dtype::F16 | Dtype::BF16)) => {
                Ok(to_f32(dtype, &checkpoint::bytes(self.path, tensor)?))
            }
            (Values::InCheckpoint(_), _) => Ok(None),
        }
    }

    /// Returns these rows of the tensor where it lies in its file, and how its stored rows make
    /// those of transformers. Returns `None` if the file is a PyTorch checkpoint or the tensor has
    /// another type than F32, F16 or BF16.
    fn in_file(&self, range: Range<usize>) -> Option<StoredPart> {
        let (file, bytes, kind, rows) = match (&self.values, self.dtype) {
            (Values::InGguf(tensor, file), _) => (*file, tensor.bytes(), tensor.stored.kind, tensor.rows()),
            (Values::Mapped(bytes, file), Dtype::F32) => (*file, *bytes, TensorType::F32, StoredRows::Same),
            (Values::Mapped(bytes, file), Dtype::F16) => (*file, *bytes, TensorType::F16, StoredRows::Same),
            (Values::Mapped(bytes, file), Dtype::BF16) => (*file, *bytes, TensorType::BF16, StoredRows::Same),
            _ => return None,
        };
        let from = bytes.as_ptr() as usize - file.as_ptr() as usize;
        let tensor = StoredTensor { file: Arc::clone(file), from, kind };
        Some(StoredPart { tensor, shape: [*self.shape.first()?, *self.shape.get(1)?], rows, range })
    }
}

/// Returns the tensors of one file, sorted by name, so that errors do not change from run to run.
fn read_file<'a>(path: &'a Path, contents: Contents<'a>) -> Result<Vec<Stored<'a>>, ModelError> {
    match contents {
        Contents::Safetensors(bytes) => {
            let mut views = read_header(path, bytes)?.tensors();
            views.sort_by(|(a, _), (b, _)| a.cmp(b));
            let stored = |(name, view): (String, TensorView<'a>)| Stored {
                path,
                name,
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                values: Values::Mapped(view.data(), bytes),
                is_taken: false,
            };
            Ok(views.into_iter().map(stored).collect())
        }
        Contents::Checkpoint(tensors) => {
            let stored = |tensor: &'a Tensor| Stored {
                path,
                name: tensor.name.clone(),
                dtype: checkpoint::dtype(tensor),
                shape: tensor.shape().to_vec(),
                values: Values::InCheckpoint(tensor),
                is_taken: false,
            };
            Ok(tensors.iter().map(stored).collect())
        }
        Contents::Gguf(bytes) => {
            let stored = |tensor: NamedTensor<'a>| Stored {
                path,
                name: tensor.name.clone(),
                // The type after dequantization.
                dtype: Dtype::F32,
                shape: tensor.shape.clone(),
                values: Values::InGguf(tensor, bytes),
                is_taken: false,
            };
            Ok(gguf::tensors(bytes, path)?.into_iter().map(stored).collect())
        }
    }
}

impl<'a> Weights<'a> {
    /// Reads the tensors of these files, each given as its path and its contents.
    ///
    /// Names lose the prefix `transformer.`, which some exports of GPT-2 have, and the prefixes
    /// `module.` and `model.` of wrapped models, with a warning. Of a model of text and images,
    /// only the tensors of the model of text are read. A name that occurs twice, in one file or in
    /// two, is refused, because the choice between the two would be arbitrary.
    pub(crate) fn read(
        config: &'a TransformerConfig,
        files: &[(&'a Path, Contents<'a>)],
        warnings: &mut Vec<LoadWarning>,
    ) -> Result<Self, ModelError> {
        let Some(&(first, _)) = files.first() else { return Err(ModelError::NoWeights) };
        let mut all = Vec::new();
        for &(path, contents) in files {
            let named = |stored: Stored<'a>| Some((prefix::of_text(config.architecture, &stored.name)?, stored));
            all.extend(read_file(path, contents)?.into_iter().filter_map(named));
        }
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let wrapper = prefix::wrapper(config.architecture, &names);
        let foreign = match wrapper {
            Some(_) => None,
            None => prefix::foreign(config.architecture, &names),
        };
        warnings.extend(wrapper.map(|prefix| LoadWarning::RemovedPrefix { path: first.into(), prefix: prefix.into() }));
        let mut tensors = BTreeMap::<String, Stored<'a>>::new();
        for (name, stored) in all {
            let name = name.strip_prefix(wrapper.unwrap_or_default()).unwrap_or(&name);
            let bare = prefix::bare(name).to_owned();
            if let Some(other) = tensors.get(&bare) {
                let (first, first_name) = (other.path.into(), other.name.clone());
                return Err(ModelError::RepeatedTensor {
                    first,
                    first_name,
                    second: stored.path.into(),
                    second_name: stored.name,
                });
            }
            tensors.insert(bare, stored);
        }
        let embedding = layout::file_name(config.architecture, WeightName::WE, 0);
        match foreign {
            Some((found, prefix)) if !tensors.contains_key(&embedding) => {
                Err(ModelError::ForeignPrefix { path: first.into(), tensor: embedding, found, prefix })
            }
            _ => Ok(Self { config, tensors, first }),
        }
    }

    /// Takes a weight's values, in the model's layout.
    pub(crate) fn take(&mut self, part: WeightName, layer: usize) -> Result<Vec<f32>, ModelError> {
        let mut all = Vec::new();
        for tensor in layout::file_tensors(self.config, part, layer) {
            let values = self.take_tensor(tensor)?;
            if all.is_empty() { all = values } else { all.extend(values) }
        }
        Ok(layout::to_model(self.config, part, all))
    }

    /// Takes a matrix, which stays in its file. Its values are read once, to check that they are
    /// finite.
    pub(crate) fn take_stored(&mut self, part: WeightName, layer: usize) -> Result<StoredMatrix, ModelError> {
        let mut parts = Vec::new();
        for tensor in layout::file_tensors(self.config, part, layer) {
            let stored = self.take_named(&tensor)?;
            let path = || stored.path.into();
            let Some(found) = stored.in_file(tensor.rows.clone()) else {
                return Err(match stored.values {
                    Values::InCheckpoint(_) => ModelError::StoredCheckpoint { path: path() },
                    _ => ModelError::TensorType { path: path(), tensor: tensor.name, dtype: stored.dtype.to_string() },
                });
            };
            // Reading the values again finds the first that is not finite.
            if !found.is_finite() {
                finite_values(stored, tensor.name)?;
            }
            parts.push(found);
        }
        Ok(stored_matrix(self.config, part, parts))
    }

    /// Takes a tensor, which must have the wanted shape.
    fn take_named(&mut self, wanted: &FileTensor) -> Result<&Stored<'a>, ModelError> {
        let Some(stored) = self.tensors.get_mut(&wanted.name) else {
            return Err(ModelError::MissingTensor { path: self.first.into(), tensor: wanted.name.clone() });
        };
        stored.is_taken = true;
        // The shape comes first: values of another shape may be larger than any memory.
        match stored.shape == wanted.shape {
            true => Ok(stored),
            false => {
                let (path, tensor) = (stored.path.into(), wanted.name.clone());
                let (expected, found) = (wanted.shape.clone(), stored.shape.clone());
                Err(ModelError::TensorShape { path, tensor, expected, found })
            }
        }
    }

    /// Takes the values of a tensor's rows. The tensor must have the wanted shape.
    fn take_tensor(&mut self, wanted: FileTensor) -> Result<Vec<f32>, ModelError> {
        let range = wanted.range();
        let values = finite_values(self.take_named(&wanted)?, wanted.name)?;
        Ok(match range.len() < values.len() {
            true => values[range].to_vec(),
            false => values,
        })
    }

    /// Removes the unembedding if the configuration ties it to the embedding. Returns a warning if
    /// the two differ.
    pub(crate) fn take_tied(&mut self) -> Result<Option<LoadWarning>, ModelError> {
        let [tensor, embedding] =
            [WeightName::WU, WeightName::WE].map(|p| layout::file_name(self.config.architecture, p, 0));
        if !self.config.tied_unembedding {
            return Ok(None);
        }
        let (Some(w_u), Some(w_e)) = (self.tensors.remove(&tensor), self.tensors.get(&embedding)) else {
            return Ok(None);
        };
        let largest = match w_u.shape == w_e.shape && w_e.shape == layout::shape(self.config, WeightName::WE) {
            true => w_u.to_f32()?.zip(w_e.to_f32()?).map(|(w_u, w_e)| largest_difference(&w_u, &w_e)),
            false => None,
        };
        let path = w_u.path.into();
        Ok((largest != Some(0.0)).then_some(LoadWarning::IgnoredUnembedding { path, tensor, embedding, largest }))
    }

    /// Refuses tensors that the architecture does not have.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        match self.tensors.iter().find(|(name, stored)| !stored.is_taken && !layout::is_buffer(name)) {
            None => Ok(()),
            Some((name, stored)) => {
                Err(ModelError::UnexpectedTensor { path: stored.path.into(), tensor: name.clone() })
            }
        }
    }
}

/// Returns the values of the tensor of this name, which must be finite.
fn finite_values(stored: &Stored<'_>, tensor: String) -> Result<Vec<f32>, ModelError> {
    let path = || stored.path.into();
    let Some(values) = stored.to_f32()? else {
        return Err(ModelError::TensorType { path: path(), tensor, dtype: stored.dtype.to_string() });
    };
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(ModelError::NotFinite { path: path(), tensor, value: values[index], index }),
        None => Ok(values),
    }
}

/// Returns the largest difference of two numbers at the same index. It is infinite if a number is
/// NaN.
fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |largest, (a, b)| match (a - b).abs() {
        difference if difference.is_nan() => f32::INFINITY,
        difference => difference.max(largest),
    })
}

/// Returns the values of a tensor, or `None` for another type than F32, F16 or BF16.
fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        Dtype::F32 => Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}
