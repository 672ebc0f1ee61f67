//! The tensors in a model's weight files. Each name must be unique, and each shape must match the
//! configuration.

use std::collections::BTreeMap;
use std::path::Path;

use rewire_input::{cut, repeated_key};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

use crate::config::TransformerConfig;
use crate::error::ModelError;
use crate::files::layout::{self, WeightName};

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

/// The tensors of a model's files that the loader has not taken yet.
pub(crate) struct Weights<'a> {
    config: &'a TransformerConfig,
    tensors: BTreeMap<String, Stored<'a>>,
    first: &'a Path,
}

/// A tensor, its file, and its name in that file.
struct Stored<'a> {
    path: &'a Path,
    name: String,
    view: TensorView<'a>,
}

impl<'a> Weights<'a> {
    /// Reads the tensors of these files, each given as its path and its bytes.
    ///
    /// Names lose the prefix `transformer.`, which some exports of GPT-2 have. A name that occurs
    /// twice, in one file or in two, is refused, because the choice between the two would be
    /// arbitrary.
    pub(crate) fn read(config: &'a TransformerConfig, files: &[(&'a Path, &'a [u8])]) -> Result<Self, ModelError> {
        let Some(&(first, _)) = files.first() else { return Err(ModelError::NoWeights) };
        let mut tensors = BTreeMap::<String, Stored<'a>>::new();
        for &(path, bytes) in files {
            let file = read_header(path, bytes)?;
            let mut views = file.tensors();
            // The reader's order changes from run to run, and errors must not.
            views.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (name, view) in views {
                let bare = name.strip_prefix("transformer.").unwrap_or(&name).to_owned();
                if let Some(other) = tensors.get(&bare) {
                    let (first, first_name) = (other.path.into(), other.name.clone());
                    return Err(ModelError::RepeatedTensor {
                        first,
                        first_name,
                        second: path.into(),
                        second_name: name,
                    });
                }
                tensors.insert(bare, Stored { path, name, view });
            }
        }
        Ok(Self { config, tensors, first })
    }

    /// Takes a weight's values, in the model's layout.
    pub(crate) fn take(&mut self, part: WeightName, layer: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = layout::file_name(self.config.architecture, part, layer);
        let Some(Stored { path, view, .. }) = self.tensors.remove(&tensor) else {
            return Err(ModelError::MissingTensor { path: self.first.into(), tensor });
        };
        let expected = layout::file_shape(self.config, part);
        if view.shape() != expected {
            return Err(ModelError::TensorShape { path: path.into(), tensor, expected, found: view.shape().to_vec() });
        }
        let values = to_f32(&view).ok_or_else(|| ModelError::TensorType {
            path: path.into(),
            tensor: tensor.clone(),
            dtype: view.dtype().to_string(),
        })?;
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(ModelError::NotFinite { path: path.into(), tensor, value: values[index], index });
        }
        Ok(layout::to_model(self.config, part, values))
    }

    /// Refuses an unembedding that differs from the embedding if the configuration ties them.
    pub(crate) fn check_tied(&self) -> Result<(), ModelError> {
        let [tensor, embedding] =
            [WeightName::WU, WeightName::WE].map(|p| layout::file_name(self.config.architecture, p, 0));
        let (true, Some(Stored { path, view: w_u, .. }), Some(Stored { view: w_e, .. })) =
            (self.config.tied_unembedding, self.tensors.get(&tensor), self.tensors.get(&embedding))
        else {
            return Ok(());
        };
        let equal = match w_u.dtype() == w_e.dtype() {
            true => w_u.data() == w_e.data(),
            false => to_f32(w_u) == to_f32(w_e),
        };
        match equal {
            true => Ok(()),
            false => Err(ModelError::NotTied { path: (*path).into(), tensor, embedding }),
        }
    }

    /// Refuses tensors that the architecture does not have.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        let tied = self.config.tied_unembedding.then(|| layout::file_name(self.config.architecture, WeightName::WU, 0));
        let stray = |name: &&String| !layout::is_buffer(name) && Some(*name) != tied.as_ref();
        match self.tensors.keys().find(stray) {
            None => Ok(()),
            Some(name) => {
                Err(ModelError::UnexpectedTensor { path: self.tensors[name].path.into(), tensor: name.clone() })
            }
        }
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let pairs = || view.data().chunks_exact(2).map(|b| [b[0], b[1]]);
    match view.dtype() {
        Dtype::F32 => Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}
