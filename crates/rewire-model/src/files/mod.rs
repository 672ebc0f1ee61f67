//! Finds, downloads, reads and writes model files in Hugging Face layout.

pub(crate) mod activations;
pub(crate) mod bytes;
pub(crate) mod checkpoint;
pub(crate) mod config_file;
pub(crate) mod fields;
pub(crate) mod file;
pub(crate) mod gguf;
#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod layout;
pub(crate) mod load;
pub(crate) mod model_files;
#[cfg(feature = "hub")]
pub(crate) mod packaged;
pub(crate) mod prefix;
pub(crate) mod save;
pub(crate) mod stored;
pub(crate) mod stored_rows;
pub(crate) mod tensors;
pub(crate) mod vocabulary;
pub(crate) mod warning;
