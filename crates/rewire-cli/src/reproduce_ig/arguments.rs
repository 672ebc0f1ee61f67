//! The arguments of `reproduce-ig`.

use std::path::{Path, PathBuf};

use clap::Args;
use rewire_analysis::integrated::{DEFAULT_PANELS, Quadrature, Rule};
use rewire_hooks::Head;
use serde_json::{Value, json};

use crate::arguments::{at_least_one, at_most_a_million, tolerance};
use crate::headings::{INTEGRATED, OUTPUT, PROMPTS, WHAT};
use crate::model::ModelArguments;
use crate::output::OutputArguments;
use crate::shards::choice::ShardArguments;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Number of prompts for the ablation study.
    ///
    /// They are generated, and measure accuracy. 0 skips the study. The notebook uses up to 10,000.
    #[arg(long, default_value_t = 1000, value_parser = at_most_a_million, value_name = "N", help_heading = PROMPTS)]
    pub(super) prompts: usize,
    /// Number of generated pairs for correlations; 0 skips them.
    ///
    /// Correlations with activation patching are averaged over these pairs. The default is 100, or
    /// 5 for a model with more than 10,000 neurons.
    #[arg(long, value_name = "N", value_parser = at_most_a_million, help_heading = PROMPTS)]
    pub(super) generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = PROMPTS)]
    pub(super) seed: u64,
    /// Heads to ablate in addition to the outliers, such as L9H6,L10H0.
    #[arg(long, value_delimiter = ',', value_name = "HEADS", help_heading = WHAT)]
    pub(super) heads: Vec<Head>,
    /// Number of quadrature steps.
    #[arg(
        long,
        default_value_t = Quadrature::default().steps,
        value_parser = at_least_one,
        value_name = "N",
        help_heading = INTEGRATED
    )]
    pub(super) steps: usize,
    /// Quadrature rule.
    ///
    /// gauss-legendre, riemann-left, riemann-right, riemann-middle or trapezoid.
    #[arg(long, default_value_t = Quadrature::default().rule, help_heading = INTEGRATED)]
    pub(super) rule: Rule,
    /// Largest completeness gap, as a share.
    ///
    /// The gap is the difference between the sum of the attributions and the change of the metric.
    /// It is a share of that change or, if the change is small, of a hundredth of the terms that
    /// cancel in it. If it is larger, the line is divided into panels of --steps steps each, where
    /// the gap arises. Layers whose gap stays larger are named in a warning, with their gaps.
    #[arg(long, default_value_t = 0.001, value_parser = tolerance, value_name = "SHARE", help_heading = INTEGRATED)]
    pub(super) tolerance: f64,
    /// Largest number of panels into which a line is divided.
    ///
    /// A line then has at most --steps times this number of steps. 1 never divides a line.
    #[arg(long, default_value_t = DEFAULT_PANELS, value_parser = at_least_one, value_name = "N", help_heading = INTEGRATED)]
    pub(super) panels: usize,
    /// Range of the interpolation curves.
    ///
    /// 0 is the clean activation and 1 the corrupted one.
    #[arg(
        long,
        num_args = 2,
        value_names = ["FROM", "TO"],
        default_values_t = [-2.0, 3.0],
        allow_negative_numbers = true,
        help_heading = INTEGRATED
    )]
    pub(super) range: Vec<f64>,
    /// Directory for the results.
    ///
    /// The files are effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ig", value_name = "DIR", help_heading = OUTPUT)]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputArguments,
    #[command(flatten)]
    pub(crate) shard: ShardArguments,
}

impl Arguments {
    /// Returns the output directory.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Returns the arguments that the results depend on.
    pub(super) fn describe(&self) -> Value {
        json!({
            "prompts": self.prompts,
            "generated pairs": self.generated_pairs,
            "seed": self.seed,
            "heads": self.heads,
            "steps": self.steps,
            "rule": self.rule,
            "tolerance": self.tolerance,
            "panels": self.panels,
            "range": self.range,
        })
    }
}
