//! Model files in Hugging Face's layout: found, downloaded, read and written.

pub(crate) mod fields;
#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod layout;
pub(crate) mod load;
pub(crate) mod save;
pub(crate) mod tensors;
