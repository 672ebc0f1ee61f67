//! Reads the header, the metadata and the places of the tensors.

pub(crate) mod cursor;
pub(crate) mod file;
pub(crate) mod metadata;
pub(crate) mod tensor_type;
pub(crate) mod tensors;
pub(crate) mod value;
