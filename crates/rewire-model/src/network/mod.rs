//! The network: one file per layer, the one forward, and the descriptions of its runs.

pub(crate) mod attention;
pub(crate) mod backward;
pub(crate) mod block;
mod convenience;
pub(crate) mod differentiable;
pub(crate) mod generate;
pub(crate) mod linear;
pub(crate) mod matrix;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod parts;
#[cfg(feature = "flex")]
mod product;
pub(crate) mod project;
pub(crate) mod rotary;
pub(crate) mod run;
pub(crate) mod segments;
pub(crate) mod transformer;
