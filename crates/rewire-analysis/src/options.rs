//! Which way to patch, on what scale, and in what portions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which run is patched, and from which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The corrupted run is patched from the clean one: what suffices to bring the behaviour back.
    Denoising,
    /// The clean run is patched from the corrupted one: what is necessary for the behaviour.
    Noising,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Denoising => "denoising",
            Direction::Noising => "noising",
        })
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "denoising" => Ok(Direction::Denoising),
            "noising" => Ok(Direction::Noising),
            other => Err(format!("no direction `{other}`; there are denoising and noising")),
        }
    }
}

/// The unit of effects. Both are changes of the metric against the run that is patched, so that a node without effect has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// As a share of clean mean less corrupted mean: denoising, 1 is all of the behaviour back; noising, -1 is all of it gone.
    Normalised,
    /// In the metric's own unit.
    Metric,
}

/// How a sweep is done.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Which run is patched.
    pub direction: Direction,
    /// The unit of effects.
    pub scale: Scale,
    /// Prompt pairs whose activations are held at once. A batch holds, in float32, the residual stream, keys and values of
    /// every layer and the patched activations: about `4 * n_layers * pos * prompt_batch * 5 d_model` bytes a node kind.
    pub prompt_batch: usize,
    /// Most tokens in one forward pass: patches at one layer run side by side up to this many. A pass needs about
    /// `4 * token_budget * (3 d_mlp + 8 d_model)` bytes while it runs.
    pub token_budget: usize,
    /// Told how many of how many patches are done; both count prompts.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            direction: Direction::Denoising,
            scale: Scale::Normalised,
            prompt_batch: 32,
            token_budget: 4096,
            progress: &|_, _| {},
        }
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("direction", &self.direction)
            .field("scale", &self.scale)
            .field("prompt_batch", &self.prompt_batch)
            .field("token_budget", &self.token_budget)
            .finish_non_exhaustive()
    }
}
