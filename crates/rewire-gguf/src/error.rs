//! The error of reading a GGUF file.

use std::path::{Path, PathBuf};

use rewire_input::cut;

/// Why a GGUF file was refused. Each error names the file, and the key or the tensor that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file is not a GGUF file, is cut off, or has another version or byte order.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// A value of the metadata is damaged, missing or unsupported.
    #[error("{path}, key `{}`: {reason}", cut(key))]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The error.
        reason: String,
    },
    /// A tensor is damaged, missing or unsupported.
    #[error("{path}, tensor `{}`: {reason}", cut(tensor))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The error.
        reason: String,
    },
}

impl GgufError {
    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn key(path: &Path, key: &str, reason: impl Into<String>) -> Self {
        Self::Key { path: path.into(), key: key.into(), reason: reason.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.into(), tensor: tensor.into(), reason: reason.into() }
    }
}
