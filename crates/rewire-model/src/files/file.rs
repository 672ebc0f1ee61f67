//! One file of a model: on disk, or part of the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use pytorch_reader::Tensor;

use crate::error::ModelError;
use crate::files::bytes::Bytes;
use crate::files::checkpoint;
use crate::files::gguf;
use crate::files::tensors::Contents;

/// A file on disk, or a file that is part of the program.
#[derive(Debug, Clone)]
pub(crate) enum File {
    OnDisk(PathBuf),
    Embedded { name: PathBuf, bytes: &'static [u8] },
}

/// An open weight file.
pub(crate) enum OpenWeights {
    Safetensors(Arc<Bytes>),
    Checkpoint(Vec<Tensor>),
    Gguf(Arc<Bytes>),
}

impl OpenWeights {
    pub(crate) fn contents(&self) -> Contents<'_> {
        match self {
            OpenWeights::Safetensors(bytes) => Contents::Safetensors(bytes),
            OpenWeights::Checkpoint(tensors) => Contents::Checkpoint(tensors),
            OpenWeights::Gguf(bytes) => Contents::Gguf(bytes),
        }
    }
}

impl File {
    pub(crate) fn path(&self) -> &Path {
        match self {
            File::OnDisk(path) => path,
            File::Embedded { name, .. } => name,
        }
    }

    /// Returns a description that changes if the file changes. The contents of a file on disk are
    /// not read.
    pub(crate) fn version(&self) -> Result<String, ModelError> {
        match self {
            File::Embedded { bytes, .. } => Ok(format!("{} bytes, CRC-32 {:08x}", bytes.len(), crc32fast::hash(bytes))),
            File::OnDisk(path) => {
                let read = |source| ModelError::Read { path: path.clone(), source };
                let about = std::fs::metadata(path).map_err(read)?;
                let changed = about.modified().map_err(read)?;
                // A time before 1970 is negative.
                let changed = match changed.duration_since(UNIX_EPOCH) {
                    Ok(after) => after.as_nanos() as i128,
                    Err(before) => -(before.duration().as_nanos() as i128),
                };
                Ok(format!("{} bytes, changed {changed} ns after 1970", about.len()))
            }
        }
    }

    /// Returns the number of bytes of the file.
    pub(crate) fn length(&self) -> Result<u64, ModelError> {
        match self {
            File::Embedded { bytes, .. } => Ok(bytes.len() as u64),
            File::OnDisk(path) => match std::fs::metadata(path) {
                Ok(about) => Ok(about.len()),
                Err(source) => Err(ModelError::Read { path: path.clone(), source }),
            },
        }
    }

    pub(crate) fn bytes(&self) -> Result<Bytes, ModelError> {
        match self {
            File::Embedded { bytes, .. } => Ok(Bytes::Embedded(bytes)),
            File::OnDisk(path) => {
                map(path).map(Bytes::Mapped).map_err(|source| ModelError::Read { path: path.clone(), source })
            }
        }
    }

    /// Opens a weight file.
    pub(crate) fn open_weights(&self) -> Result<OpenWeights, ModelError> {
        match self {
            File::OnDisk(path) if checkpoint::is_checkpoint(path) => {
                checkpoint::read(path).map(OpenWeights::Checkpoint)
            }
            File::OnDisk(path) if gguf::is_gguf(path) => self.bytes().map(|bytes| OpenWeights::Gguf(Arc::new(bytes))),
            _ => self.bytes().map(|bytes| OpenWeights::Safetensors(Arc::new(bytes))),
        }
    }
}

// SAFETY: the map is read-only. It is dropped before loading returns, or, if weights stay in the
// file, with the model. If another process shortens the file in the meantime, reading it faults.
// Every loader of these files accepts this risk, because the alternative is to hold two copies of a
// model in memory. A file that is written to in the meantime changes numbers, and no more than
// that: every value of its bytes is a number.
#[allow(unsafe_code)]
fn map(path: &Path) -> std::io::Result<memmap2::Mmap> {
    let file = std::fs::File::open(path)?;
    unsafe { memmap2::Mmap::map(&file) }
}
