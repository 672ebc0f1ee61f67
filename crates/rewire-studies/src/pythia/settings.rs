//! The settings of the study.

/// The settings of the study.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Number of prompts for the notebook's steps; the notebook has 70.
    pub prompts: usize,
    /// Number of further prompts on which the circuit's heads are chosen.
    pub choose_prompts: usize,
    /// Number of further prompts on which the circuit is evaluated.
    pub judge_prompts: usize,
    /// Seed of all prompts, of the bootstrap, and of the sets of random heads.
    pub seed: u64,
    /// Smallest effect of a head that counts in a step, as a share of the clean minus corrupted
    /// logit difference.
    pub threshold: f32,
    /// Smallest absolute effect of a path between heads that is kept. `None` means a tenth of the
    /// largest.
    pub edge_threshold: Option<f32>,
    /// Number of paths that are patched exactly, largest attribution first, if the model has more
    /// than 2000 paths.
    pub edges: usize,
    /// Prompt, counted from 0, whose attention patterns are kept.
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
