//! The attribution-patching demo on indirect object identification.
//!
//! [`analyse`] runs the demo's analyses on its eight pairs, and patches the heads of those and of
//! generated pairs both ways; [`checks`] sets the figures that the demo prints for GPT-2 small beside
//! ours.

mod analyse;
mod cached;
mod checks;
mod study;

pub use analyse::{BLOCKS, DIRECTIONS, Demo, Findings, HEAD_PARTS, HEADS, HeadEffect, Noising};
pub use checks::checks;
pub use study::{Found, analyse};
