//! The network: one file a layer, the one forward, and the runs that it takes.

pub(crate) mod attention;
pub(crate) mod block;
mod convenience;
pub(crate) mod differentiable;
pub(crate) mod generate;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod parts;
pub(crate) mod rotary;
pub(crate) mod run;
pub(crate) mod segments;
pub(crate) mod transformer;
