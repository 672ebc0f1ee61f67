//! The arguments of `reproduce-pythia`.

use std::path::PathBuf;

use clap::Args;
use rewire_studies::pythia::Settings;
use serde_json::{Value, json};

use crate::arguments::{at_least_one, at_most_a_million};
use crate::headings::{OUTPUT, PROMPTS, WHAT};
use crate::model::ModelArguments;
use crate::output::OutputArguments;
use crate::shards;
use crate::shards::choice::ShardChoice;

#[derive(Args)]
#[command(mut_arg("model", |model| model.default_value("toy-neox")))]
pub struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Number of prompts for the notebook's steps.
    ///
    /// The notebook has 70.
    #[arg(long, default_value_t = 70, value_parser = at_most_a_million, value_name = "N", help_heading = PROMPTS)]
    pub(super) prompts: usize,
    /// Number of prompts that choose the circuit's heads.
    ///
    /// These further prompts are called choosing prompts.
    #[arg(long, default_value_t = 600, value_parser = at_most_a_million, value_name = "N", help_heading = PROMPTS)]
    pub(super) choose_prompts: usize,
    /// Number of prompts that judge the circuit.
    ///
    /// These further prompts are called judging prompts. No judging prompt is a choosing prompt.
    /// Results for the circuit are on the judging prompts unless they are labeled otherwise.
    #[arg(long, default_value_t = 600, value_parser = at_most_a_million, value_name = "N", help_heading = PROMPTS)]
    pub(super) judge_prompts: usize,
    /// Seed of prompts, bootstrap and random heads.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = PROMPTS)]
    pub(super) seed: u64,
    /// Smallest effect of a head that counts in a step.
    ///
    /// A share of the clean minus corrupted logit difference.
    #[arg(long, default_value_t = 0.02, value_parser = share, value_name = "SHARE", help_heading = WHAT)]
    pub(super) threshold: f32,
    /// Smallest absolute effect of a path that stays in the graph.
    ///
    /// The paths are between heads. The default is a tenth of the largest effect.
    #[arg(long, value_parser = share, value_name = "SHARE", help_heading = WHAT)]
    pub(super) edge_threshold: Option<f32>,
    /// Number of paths between heads to patch exactly.
    ///
    /// The paths of largest attribution are patched. Used only if the model has more than 2000
    /// paths.
    #[arg(long, default_value_t = 300, value_parser = at_least_one, value_name = "N", help_heading = WHAT)]
    pub(super) edges: usize,
    /// Prompt, counted from 0, on which attention is drawn.
    #[arg(long, default_value_t = 0, value_name = "PROMPT", help_heading = WHAT)]
    pub(super) show: usize,
    /// Directory for the results.
    ///
    /// The files are effects.safetensors, effects.json, effects.csv, circuit.json, circuit.dot and
    /// report.html.
    #[arg(long, default_value = "out/reproduce-pythia", value_name = "DIR", help_heading = OUTPUT)]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputArguments,
    /// Refused with the reason, because the other long commands have this flag.
    #[arg(long, hide = true, value_name = "K/N")]
    shard: Option<ShardChoice>,
}

/// Smallest number of choosing or judging prompts.
const FEWEST: usize = 10;

/// Parses a share above 0 and up to 1.
fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(_) => Err("must be above 0 and at most 1".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

impl Arguments {
    /// Refuses numbers of prompts that are too small, and a `--show` past the last prompt.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.shard.is_none(), shards::OF_STEPS);
        anyhow::ensure!(self.prompts > 1, "--prompts must be at least 2, because effects are means over prompts");
        for (flag, n) in [("--choose-prompts", self.choose_prompts), ("--judge-prompts", self.judge_prompts)] {
            anyhow::ensure!(
                n >= FEWEST,
                "{flag} must be at least {FEWEST}, because the circuit's shares have intervals over these prompts"
            );
        }
        anyhow::ensure!(
            self.show < self.prompts,
            "--show {} is not one of the {} prompts, counted from 0",
            self.show,
            self.prompts
        );
        Ok(())
    }

    /// Returns the arguments that the results depend on.
    pub(super) fn describe(&self) -> Value {
        json!({
            "prompts": self.prompts,
            "choosing prompts": self.choose_prompts,
            "judging prompts": self.judge_prompts,
            "seed": self.seed,
            "threshold": self.threshold,
            "edge threshold": self.edge_threshold,
            "edges": self.edges,
            "shown prompt": self.show,
        })
    }

    /// Returns the settings of the study.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            prompts: self.prompts,
            choose_prompts: self.choose_prompts,
            judge_prompts: self.judge_prompts,
            seed: self.seed,
            threshold: self.threshold,
            edge_threshold: self.edge_threshold,
            edges: self.edges,
            show: self.show,
        }
    }
}
