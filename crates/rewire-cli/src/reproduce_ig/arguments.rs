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
    /// Generated prompts on which accuracy is measured, up to 10,000 in the notebook; 0 leaves the
    /// ablation study out.
    #[arg(long, default_value_t = 1000, value_parser = at_most_a_million)]
    pub(super) prompts: usize,
    /// Generated pairs over which correlations with activation patching are averaged; 0 leaves them
    /// out. Without it 100, or 5 for a model of more than 10,000 neurons.
    #[arg(long, value_name = "N", value_parser = at_most_a_million)]
    pub(super) generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Heads to ablate besides the outliers: LAYER.HEAD, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = layer_and_head)]
    pub(super) heads: Vec<Head>,
    /// Nodes of the quadrature.
    #[arg(long, default_value_t = Quadrature::default().steps, value_parser = at_least_one)]
    pub(super) steps: usize,
    /// gauss-legendre, riemann-left, riemann-right, riemann-middle, trapezoid.
    #[arg(long, default_value_t = Quadrature::default().rule)]
    pub(super) rule: Rule,
    /// How far attributions may be from summing to the metric's change, as a share of it and of a
    /// hundredth of what cancels in it; more steps are taken until they are nearer, and where that
    /// does not help it is an error.
    #[arg(long, default_value_t = 0.001, value_parser = tolerance)]
    pub(super) tolerance: f64,
    /// How far the interpolation curves go beyond the clean (0) and the corrupted (1) activation.
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], default_values_t = [-2.0, 3.0], allow_negative_numbers = true)]
    pub(super) range: Vec<f64>,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ig")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) wait: WaitArguments,
}

fn layer_and_head(text: &str) -> Result<Head, String> {
    let parts = text.split_once('.').and_then(|(layer, head)| Some(Head::new(layer.parse().ok()?, head.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is no head; heads are LAYER.HEAD, such as 9.6"))
}
