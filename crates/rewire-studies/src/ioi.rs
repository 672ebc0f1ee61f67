//! The attribution-patching demo on indirect object identification.
//!
//! [`analyze`] runs the demo's analyzes on its eight pairs, and patches the heads of those and of
//! generated pairs both ways; [`checks`] sets the figures that the demo prints for GPT-2 small beside
//! ours.

mod analyze;
mod cached;
mod checks;
mod study;

pub use analyze::{BLOCKS, DIRECTIONS, Demo, Findings, HEAD_PARTS, HEADS, HeadEffect, Noising};
pub use checks::checks;
pub use study::{Found, analyze};
