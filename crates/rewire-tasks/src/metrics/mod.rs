//! Metrics: one number per prompt, from logits.

pub(crate) mod accuracy;
pub(crate) mod builtin;
pub(crate) mod closure;
pub(crate) mod divergence;
pub(crate) mod linear;
pub(crate) mod log_probability;
pub(crate) mod margin;
pub(crate) mod metric;
pub(crate) mod normalization;
pub(crate) mod position;
pub(crate) mod probability;
