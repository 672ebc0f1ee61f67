//! The arguments of `reproduce-ig`.

use std::path::PathBuf;

use clap::Args;
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_hooks::Head;

use crate::arguments::{at_least_one, at_most_a_million, tolerance};
use crate::model::ModelArguments;
use crate::output::WaitArguments;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Number of generated prompts that measure accuracy in the ablation study; 0 skips the study.
    /// The notebook uses up to 10,000.
    #[arg(long, default_value_t = 1000, value_parser = at_most_a_million)]
    pub(super) prompts: usize,
    /// Number of generated pairs over which correlations with activation patching are averaged; 0
    /// skips them. Default: 100, or 5 for a model with more than 10,000 neurons.
    #[arg(long, value_name = "N", value_parser = at_most_a_million)]
    pub(super) generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Heads to ablate in addition to the outliers: L9H6 or 9.6, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(super) heads: Vec<Head>,
    /// Number of quadrature steps.
    #[arg(long, default_value_t = Quadrature::default().steps, value_parser = at_least_one)]
    pub(super) steps: usize,
    /// Quadrature rule: gauss-legendre, riemann-left, riemann-right, riemann-middle or trapezoid.
    #[arg(long, default_value_t = Quadrature::default().rule)]
    pub(super) rule: Rule,
    /// Largest completeness gap: the difference between the sum of the attributions and the change
    /// of the metric. The gap is a share of that change or, if the change is small, of a hundredth
    /// of the terms that cancel in it. The number of steps is doubled, up to four times, until the
    /// gap is within the tolerance. A gap that stays larger is an error.
    #[arg(long, default_value_t = 0.001, value_parser = tolerance)]
    pub(super) tolerance: f64,
    /// Range of the interpolation curves; 0 is the clean activation and 1 the corrupted one.
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], default_values_t = [-2.0, 3.0], allow_negative_numbers = true)]
    pub(super) range: Vec<f64>,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ig")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) wait: WaitArguments,
}
