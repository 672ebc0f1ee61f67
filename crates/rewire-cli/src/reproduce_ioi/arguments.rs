//! The arguments of `reproduce-ioi`.

use std::path::{Path, PathBuf};

use clap::Args;
use rewire_analysis::attribution::NormJacobian;
use rewire_tasks::ioi::Corruption;
use serde_json::{Value, json};

use crate::arguments::at_most_a_million;
use crate::headings::{OUTPUT, PROMPTS, WHAT};
use crate::model::ModelArguments;
use crate::output::OutputArguments;
use crate::shards::choice::ShardArguments;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Number of prompts beside the demo's eight.
    ///
    /// They are generated. 0 generates none.
    #[arg(long, default_value_t = 100, value_parser = at_most_a_million, value_name = "N", help_heading = PROMPTS)]
    pub(super) prompts: usize,
    /// Seed of prompts, bootstrap and sign flips.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = PROMPTS)]
    pub(super) seed: u64,
    /// Corruption of the generated prompts.
    ///
    /// s2-io, s1-other, io-other or abc.
    #[arg(long, default_value = "s2-io", value_name = "NAME", help_heading = PROMPTS)]
    pub(super) corruption: Corruption,
    /// Norms of a head edge: exact or frozen.
    ///
    /// For head edges. exact differentiates the norms. frozen holds their scales constant.
    #[arg(long, default_value = "exact", help_heading = WHAT)]
    pub(super) norm: NormJacobian,
    /// Directory for the results.
    ///
    /// The files are effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ioi", value_name = "DIR", help_heading = OUTPUT)]
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
            "seed": self.seed,
            "corruption": self.corruption.to_string(),
            "norm": self.norm,
        })
    }
}
