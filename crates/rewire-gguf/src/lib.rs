//! Reads GGUF files, the format of llama.cpp, and returns the Hugging Face files that they were
//! made from.
//!
//! Use this crate to take the weights, the configuration and the tokenizer out of a `.gguf` file
//! that nobody has checked. Every length, offset and count is compared with the bytes of the file
//! before it is used, and an error names the file and the key or the tensor. Values stay in the
//! file's bytes, which the caller maps into memory, until [`Tensor::to_f32`] dequantizes them as
//! the format's reference does, bit for bit.
//!
//! [`config_json`], [`tokenizer_json`] and [`named_tensors`] give the model in the terms of Hugging
//! Face: the fields of its `config.json`, its `tokenizer.json`, and its tensors by the names and in
//! the layout of transformers.
//!
//! ```
//! use std::path::Path;
//! use rewire_gguf::Gguf;
//!
//! // Version 3, no tensor, one key: the text "general.architecture" is the text "llama".
//! let mut bytes = b"GGUF\x03\0\0\0".to_vec();
//! bytes.extend([0_u64, 1].map(u64::to_le_bytes).concat());
//! bytes.extend(20_u64.to_le_bytes());
//! bytes.extend(b"general.architecture\x08\0\0\0");
//! bytes.extend(5_u64.to_le_bytes());
//! bytes.extend(b"llama");
//! let file = Gguf::read(&bytes, Path::new("model.gguf")).unwrap();
//! assert_eq!(file.metadata().architecture().unwrap(), "llama");
//!
//! let cut = Gguf::read(&bytes[..60], Path::new("model.gguf")).unwrap_err();
//! let message = "model.gguf, key `general.architecture`: the file is cut off";
//! assert!(cut.to_string().starts_with(message));
//! ```
#![forbid(unsafe_code)]

mod blocks;
mod dequantize;
mod error;
mod hugging_face;
mod read;
mod tokenizer;

pub use error::GgufError;
pub use hugging_face::config::config_json;
pub use hugging_face::layout::StoredRows;
pub use hugging_face::tensors::{NamedTensor, named_tensors};
pub use read::file::Gguf;
pub use read::metadata::Metadata;
pub use read::tensor_type::TensorType;
pub use read::tensors::Tensor;
pub use read::value::{Array, Value};
pub use tokenizer::json::tokenizer_json;
