//! The settings of the study.

use rewire_analysis::integrated::{DEFAULT_PANELS, DEFAULT_TOLERANCE, Quadrature};
use rewire_hooks::Head;

/// The settings of the study.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Number of generated prompts on which accuracy is measured; 0 skips the ablation study.
    pub prompts: usize,
    /// Number of generated pairs over which correlations are averaged. `None` means 100, or 5 for a
    /// model with more than 10,000 neurons.
    pub generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    pub seed: u64,
    /// Heads to ablate in addition to the outliers.
    pub heads: Vec<Head>,
    /// The points of the line at which gradients are computed, and their weights.
    pub quadrature: Quadrature,
    /// Largest completeness gap, relative to the change of the metric.
    pub tolerance: f64,
    /// Largest number of panels into which a line is divided to meet the tolerance.
    pub panels: usize,
    /// Range of the interpolation curves; 0 is the clean activation and 1 the corrupted one.
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
            panels: DEFAULT_PANELS,
            range: [-2.0, 3.0],
        }
    }
}
