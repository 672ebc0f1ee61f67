//! The `tokenizer.json` of a file's model, from its metadata.

pub(crate) mod byte_level;
pub(crate) mod json;
pub(crate) mod pre_tokenizer;
pub(crate) mod sentence_piece;
pub(crate) mod tokens;
