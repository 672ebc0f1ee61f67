//! What circuits are made of.

/// A head, by layer and number.
pub type Head = (usize, usize);
