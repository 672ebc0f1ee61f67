//! The Pythia notebook: the circuit for indirect object identification, found step by step.
//!
//! [`Sets::new`] draws the prompts, [`analyse`] runs the notebook's steps and finds the circuit, and
//! [`checks`] sets the printed figures beside ours, for the notebook's own model.

mod analyse;
mod checks;
mod circuit;
mod data;
mod edges;
mod notebook;
mod reference;

pub use analyse::{Found, PARTS, analyse};
pub use checks::{checks, is_the_notebooks_model};
pub use circuit::{Circuit, Comparison, Member};
pub use data::{Data, Kind, Sets};
pub use edges::Edges;
pub use reference::ReferencePrompts;

/// What the study is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Prompts of the notebook's steps; the notebook has 70.
    pub prompts: usize,
    /// Further prompts that the circuit's heads are chosen on.
    pub choose_prompts: usize,
    /// Further prompts that the circuit is judged on.
    pub judge_prompts: usize,
    /// Seed of all prompts, of bootstrap resamples, and of random heads.
    pub seed: u64,
    /// Share of clean less corrupted logit difference from which on a head counts in a step.
    pub threshold: f32,
    /// Effect from which on a path between heads is kept; `None` for a tenth of the largest.
    pub edge_threshold: Option<f32>,
    /// Paths that are patched exactly if there are more than 2000: those of largest attribution.
    pub edges: usize,
    /// Prompt, counted from 0, whose patterns are kept.
    pub show: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prompts: 70,
            choose_prompts: 600,
            judge_prompts: 600,
            seed: 0,
            threshold: 0.02,
            edge_threshold: None,
            edges: 300,
            show: 0,
        }
    }
}
