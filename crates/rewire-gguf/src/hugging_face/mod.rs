//! The model of a file in the terms of Hugging Face: `config.json`, and tensors by their names and
//! in the layout of transformers.

pub(crate) mod architecture;
pub(crate) mod config;
pub(crate) mod fields;
pub(crate) mod layout;
pub(crate) mod names;
pub(crate) mod rope;
pub(crate) mod tensors;
