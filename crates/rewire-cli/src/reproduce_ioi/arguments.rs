//! The arguments of `reproduce-ioi`.

use std::path::PathBuf;

use clap::Args;
use rewire_analysis::attribution::NormJacobian;
use rewire_tasks::ioi::Corruption;

use crate::arguments::at_most_a_million;
use crate::model::ModelArguments;
use crate::output::WaitArguments;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Number of generated prompts in addition to the demo's eight; 0 for none.
    #[arg(long, default_value_t = 100, value_parser = at_most_a_million)]
    pub(super) prompts: usize,
    /// Seed of the generated prompts, the bootstrap and the sign flips.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Corruption of the generated prompts: s2-io, s1-other, io-other or abc.
    #[arg(long, default_value = "s2-io")]
    pub(super) corruption: Corruption,
    /// How head edges differentiate the norm in front of the receiving head: completely (exact) or
    /// with its scale held (frozen).
    #[arg(long, default_value = "exact")]
    pub(super) norm: NormJacobian,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ioi")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) wait: WaitArguments,
}
