//! Finds, downloads, reads and writes model files in Hugging Face layout.

pub(crate) mod activations;
pub(crate) mod fields;
#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod layout;
pub(crate) mod load;
pub(crate) mod save;
pub(crate) mod tensors;
