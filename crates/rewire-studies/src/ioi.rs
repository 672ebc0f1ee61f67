//! The attribution-patching demo on indirect object identification.
//!
//! [`analyze`] runs the demo's analyses on its eight pairs. It also patches the heads on these and
//! on generated pairs, denoising and noising, and compares estimates of all edges with exact
//! effects. [`checks`] compares the figures that the demo prints for GPT-2 small with ours.

mod analyze;
mod cached;
mod checks;
mod edges;
mod study;

pub use analyze::{BLOCKS, DIRECTIONS, Demo, Findings, HEAD_PARTS, HEADS, HeadEffect, Noising};
pub use checks::checks;
pub use study::{Found, analyze};
