//! What the study is asked to do.

use rewire_analysis::integrated::{DEFAULT_TOLERANCE, Quadrature};
use rewire_hooks::Head;

/// What the study is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Generated prompts on which accuracy is measured; 0 leaves the ablation study out.
    pub prompts: usize,
    /// Generated pairs over which correlations are averaged; `None` for 100, or 5 if the model is
    /// large.
    pub generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    pub seed: u64,
    /// Heads to ablate besides the outliers.
    pub heads: Vec<Head>,
    /// Where gradients are taken.
    pub quadrature: Quadrature,
    /// How far attributions may be from summing to the metric's change.
    pub tolerance: f64,
    /// How far the interpolation curves go; 0 is the clean activation and 1 the corrupted one.
    pub range: [f64; 2],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prompts: 1000,
            generated_pairs: None,
            seed: 0,
            heads: Vec::new(),
            quadrature: Quadrature::default(),
            tolerance: DEFAULT_TOLERANCE / 10.0,
            range: [-2.0, 3.0],
        }
    }
}
