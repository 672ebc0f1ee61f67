//! `cargo xtask reproduce-pythia`: the circuit for indirect object identification, found step by step as the Pythia notebook does.

mod report;
mod results;
mod shown;

use std::path::PathBuf;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use clap::Args;
use rewire_model::Transformer;
use rewire_report::{Labels, describe_baselines};
use rewire_studies::pythia::{self, Sets, Settings};

use crate::arguments::at_most_a_million;
use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{WaitArguments, announce, warn};
use crate::publish::{Publication, REPORT};
use crate::session::Session;
use shown::Found;

#[derive(Args)]
#[command(mut_arg("model", |model| model.default_value("toy-neox")))]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Prompts of the notebook's steps; the notebook has 70.
    #[arg(long, default_value_t = 70, value_parser = at_most_a_million)]
    prompts: usize,
    /// Further prompts that the circuit's heads are chosen on.
    #[arg(long, default_value_t = 600, value_parser = at_most_a_million)]
    choose_prompts: usize,
    /// Further prompts, none of them chosen on, that the circuit is judged on: every figure of it
    /// that has no other label is of these.
    #[arg(long, default_value_t = 600, value_parser = at_most_a_million)]
    judge_prompts: usize,
    /// Seed of all prompts, of bootstrap resamples, and of the random heads that the circuit is
    /// compared with.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Share of clean less corrupted logit difference from which on a head counts in a step.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    threshold: f32,
    /// Effect from which on a path between heads is kept in the graph; a tenth of the largest if not given.
    #[arg(long, value_parser = share)]
    edge_threshold: Option<f32>,
    /// Paths between heads that are patched exactly where there are more than 2000: those of largest attribution.
    #[arg(long, default_value_t = 300, value_parser = crate::arguments::at_least_one)]
    edges: usize,
    /// Prompt, counted from 0, over which attention is drawn.
    #[arg(long, default_value_t = 0)]
    show: usize,
    /// Directory for effects.safetensors, effects.json, effects.csv, circuit.json, circuit.dot and report.html.
    #[arg(long, default_value = "out/reproduce-pythia")]
    out: PathBuf,
    #[command(flatten)]
    wait: WaitArguments,
}

/// Names of the files that the command writes.
const RESULTS: [&str; 6] =
    ["effects.safetensors", "effects.csv", "effects.json", "circuit.json", "circuit.dot", REPORT];

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

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory)?;
    anyhow::ensure!(arguments.prompts > 1, "--prompts must be at least 2: effects are means over prompts");
    for (flag, n) in [("--choose-prompts", arguments.choose_prompts), ("--judge-prompts", arguments.judge_prompts)] {
        anyhow::ensure!(
            n >= FEWEST,
            "{flag} must be at least {FEWEST}: the circuit's shares have intervals over these prompts"
        );
    }
    anyhow::ensure!(
        arguments.show < arguments.prompts,
        "--show {} is none of the {} prompts, counted from 0",
        arguments.show,
        arguments.prompts
    );
    let source = Source::open(&arguments.model)?;
    anyhow::ensure!(source.config.n_layers > 1, "a model of one layer has no paths between heads");
    let tokenizer = source.tokenizer()?;
    let settings = arguments.settings();
    let sets = Sets::new(tokenizer, source.bos_for_text()?, &settings)?;
    sets.check_model(source.config.d_vocab, source.config.n_ctx)?;
    let directory = arguments.wait.take(&arguments.out, &RESULTS)?;
    announce(&source)?;
    let (found, checks) = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let setup = session.setup();
        let found = pythia::analyse(&model, &setup, tokenizer, sets, &settings)?;
        let checks = match source.is_processed() && pythia::is_the_notebooks_model(&source.name, &source.config) {
            true => pythia::checks(&model.valid(), &setup, tokenizer)?,
            false => Vec::new(),
        };
        anyhow::Ok((found, checks))
    })?;

    let found = Found::new(&found, arguments);
    let warnings = warn(&source, [("", found.parts.warnings())]);
    let described = results::circuit(&source, &found, arguments);
    let page = report::page(&session, &source, &found, &checks, arguments, &warnings);
    Publication {
        tables: results::tables(&found),
        metric: "logit-diff-normalised".to_owned(),
        seed: arguments.seed,
        labels: Labels::Each(&found.data.pairs),
        baselines: describe_baselines(&found.parts.baselines),
        notes: results::notes(&found, arguments),
        page,
        files: vec![
            ("circuit.json", format!("{described:#}\n").into_bytes()),
            ("circuit.dot", found.graph.to_dot().into_bytes()),
        ],
        summary: results::summary(&session, &source, &found, &checks),
        warnings,
    }
    .publish(&session, &source, &directory)
}

impl Arguments {
    fn settings(&self) -> Settings {
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
