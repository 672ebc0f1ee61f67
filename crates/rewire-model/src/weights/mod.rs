//! The weights: made, read by the field's names, rewritten, and shortened.

pub(crate) mod init;
pub(crate) mod named;
pub(crate) mod precision;
pub(crate) mod processing;
