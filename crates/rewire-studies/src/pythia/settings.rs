//! What the study is asked to do.

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
