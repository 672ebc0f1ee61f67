//! The blocks of quantized values, by their number of values.

pub(crate) mod of_256;
pub(crate) mod of_32;
pub(crate) mod scale;
