//! `cargo xtask reproduce-pythia`: the circuit for indirect object identification, found step by step as the Pythia notebook does.

mod analyse;
mod checks;
mod circuit;
mod data;
mod edges;
mod looks;
mod notebook;
mod report;
mod results;
mod roles;

use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use clap::Args;
use rewire_model::Transformer;
use rewire_report::{About, Check, check_directory, describe_baselines, write_tables, write_whole};
use serde_json::json;

use crate::arguments::at_most_a_million;
use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{about, print, warn};
use data::Data;

#[derive(Args)]
#[command(mut_arg("model", |model| model.default_value("toy-neox")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Prompts; the notebook has 70.
    #[arg(long, default_value_t = 70, value_parser = at_most_a_million)]
    prompts: usize,
    /// Seed of the prompts, and of the random heads that the circuit is compared with.
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
}

/// A share above 0 and up to 1.
fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(_) => Err("must be above 0 and at most 1".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    anyhow::ensure!(arguments.prompts > 1, "--prompts must be at least 2: effects are means over prompts");
    anyhow::ensure!(
        arguments.show < arguments.prompts,
        "--show {} is none of the {} prompts, counted from 0",
        arguments.show,
        arguments.prompts
    );
    let source = Source::open(&arguments.model)?;
    anyhow::ensure!(source.config.n_layers > 1, "a model of one layer has no paths between heads");
    let tokenizer = source.tokenizer()?;
    // The notebook's prompts have no token in front; every other model gets what it is used to.
    let bos = source.config.bos_token.filter(|_| !checks::is_the_notebooks(&source));
    let data = Data::new(tokenizer, bos, arguments.prompts, arguments.seed)?;
    data.pairs.check_model(source.config.d_vocab, source.config.n_ctx)?;
    check_directory(&arguments.out)?;
    let (found, checks) = on_device!(arguments.model.device, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let found = analyse::analyse(&model, tokenizer, data, arguments)?;
        let checks = checks::checks(&source, &model.valid(), tokenizer)?;
        anyhow::Ok((found, checks))
    })?;

    let warnings = warn([("", found.parts.warnings())]);
    let labels: Vec<_> = (0..found.data.pairs.len()).map(|p| found.data.pairs.labels(p).to_vec()).collect();
    let about = About {
        metric: "logit-diff-normalised".to_owned(),
        seed: Some(arguments.seed),
        labels: json!(labels),
        baselines: describe_baselines(&found.parts.baselines),
        warnings: warnings.clone(),
        notes: results::notes(&found, arguments),
        ..about(&source, arguments.model.device, started)
    };
    write_tables(&arguments.out, &results::tables(&found), &about)?;
    let described = results::circuit(&source, &found, arguments);
    write_whole(&arguments.out.join("circuit.json"), format!("{described:#}\n").as_bytes())?;
    write_whole(&arguments.out.join("circuit.dot"), found.edges.graph.to_dot().as_bytes())?;
    let path = arguments.out.join("report.html");
    write_whole(&path, report::page(&source, &found, &checks, arguments, &warnings).render().as_bytes())?;
    print(&results::summary(&source, &found, &checks, arguments));
    print(&format!("\n{:.1} s; report: {}\n", started.elapsed().as_secs_f64(), path.display()));
    Ok(())
}

/// Rows of a table of figures beside ours.
fn check_rows(checks: &[Check]) -> Vec<Vec<String>> {
    checks
        .iter()
        .map(|c| vec![c.what.clone(), c.expected.clone(), c.got.clone(), c.verdict.text().to_owned()])
        .collect()
}
