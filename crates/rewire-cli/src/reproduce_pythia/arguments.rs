//! The arguments of `reproduce-pythia`.

use std::path::PathBuf;

use clap::Args;
use rewire_studies::pythia::Settings;

use crate::arguments::{at_least_one, at_most_a_million};
use crate::model::ModelArguments;
use crate::output::WaitArguments;

#[derive(Args)]
#[command(mut_arg("model", |model| model.default_value("toy-neox")))]
pub struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Prompts of the notebook's steps; the notebook has 70.
    #[arg(long, default_value_t = 70, value_parser = at_most_a_million)]
    pub(super) prompts: usize,
    /// Further prompts that the circuit's heads are chosen on.
    #[arg(long, default_value_t = 600, value_parser = at_most_a_million)]
    pub(super) choose_prompts: usize,
    /// Further prompts, none of them chosen on, that the circuit is judged on: every figure of it
    /// that has no other label is of these.
    #[arg(long, default_value_t = 600, value_parser = at_most_a_million)]
    pub(super) judge_prompts: usize,
    /// Seed of all prompts, of bootstrap resamples, and of the random heads that the circuit is
    /// compared with.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Share of clean less corrupted logit difference from which on a head counts in a step.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub(super) threshold: f32,
    /// Effect from which on a path between heads is kept in the graph; a tenth of the largest if
    /// not given.
    #[arg(long, value_parser = share)]
    pub(super) edge_threshold: Option<f32>,
    /// Paths between heads that are patched exactly where there are more than 2000: those of
    /// largest attribution.
    #[arg(long, default_value_t = 300, value_parser = at_least_one)]
    pub(super) edges: usize,
    /// Prompt, counted from 0, over which attention is drawn.
    #[arg(long, default_value_t = 0)]
    pub(super) show: usize,
    /// Directory for effects.safetensors, effects.json, effects.csv, circuit.json, circuit.dot and
    /// report.html.
    #[arg(long, default_value = "out/reproduce-pythia")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) wait: WaitArguments,
}

/// Fewest prompts that a circuit is chosen or judged on.
const FEWEST: usize = 10;

/// A share above 0 and up to 1.
fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(_) => Err("must be above 0 and at most 1".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

impl Arguments {
    /// Refuses numbers of prompts that are too small, and a prompt to draw that is none of them.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.prompts > 1, "--prompts must be at least 2: effects are means over prompts");
        for (flag, n) in [("--choose-prompts", self.choose_prompts), ("--judge-prompts", self.judge_prompts)] {
            anyhow::ensure!(
                n >= FEWEST,
                "{flag} must be at least {FEWEST}: the circuit's shares have intervals over these prompts"
            );
        }
        anyhow::ensure!(
            self.show < self.prompts,
            "--show {} is none of the {} prompts, counted from 0",
            self.show,
            self.prompts
        );
        Ok(())
    }

    /// The settings of the study.
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
