//! Reads PyTorch checkpoints (`pytorch_model.bin`). Their pickle is parsed and never executed.
//!
//! The crate `pytorch-reader` limits the pickle to 100 MiB and checks every length against the
//! file. `docs/decisions/0012-pytorch-files.md` says why it is used.

use std::path::Path;

use pytorch_reader::{DType, PytorchReader, Tensor};
use rewire_input::{check_regular, cut};
use safetensors::tensor::Dtype;

use crate::error::ModelError;

/// Returns whether a weight file is a PyTorch checkpoint. The name decides, as in transformers.
pub(crate) fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "bin")
}

/// Returns the tensors of a checkpoint, sorted by name. Their values are not read yet.
pub(crate) fn read(path: &Path) -> Result<Vec<Tensor>, ModelError> {
    let file = |source| ModelError::Read { path: path.into(), source };
    check_regular(path).map_err(file)?;
    let length = std::fs::metadata(path).map_err(file)?.len();
    let refuse = |reason: &str| ModelError::Checkpoint { path: path.into(), reason: cut(reason) };
    let reader = PytorchReader::new(path).map_err(|error| refuse(&error.to_string()))?;
    let mut tensors: Vec<Tensor> = reader.into_tensors().into_values().collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    // A tensor may be a view that repeats its numbers. Such a tensor needs more memory than the
    // file has bytes, and no model has one.
    match tensors.iter().find(|tensor| tensor.byte_len() as u64 > length) {
        Some(tensor) => Err(refuse(&format!(
            "its tensor `{}` has {} bytes, more than the file's {length}",
            tensor.name,
            tensor.byte_len()
        ))),
        None => Ok(tensors),
    }
}

/// Returns the values of a tensor of the checkpoint at `path`, as little-endian bytes in row-major
/// order.
pub(crate) fn bytes(path: &Path, tensor: &Tensor) -> Result<Vec<u8>, ModelError> {
    tensor.read().map_err(|error| ModelError::Checkpoint { path: path.into(), reason: cut(&error.to_string()) })
}

/// Returns the element type of a tensor, under its name in safetensors files.
pub(crate) fn dtype(tensor: &Tensor) -> Dtype {
    match tensor.dtype() {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
