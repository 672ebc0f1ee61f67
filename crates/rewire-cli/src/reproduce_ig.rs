//! `cargo xtask reproduce-ig`: integrated gradients against activation patching, and what ablation says of both.

mod report;
mod results;

use std::path::PathBuf;

use burn::backend::Autodiff;
use clap::Args;
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_studies::KnownModel;
use rewire_studies::integrated_gradients::{self, Prompts, Settings};

use crate::arguments::{at_least_one, at_most_a_million, tolerance};
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, warn};
use crate::on_device::on_device;
use crate::output::WaitArguments;
use crate::publish::{Publication, RESULTS};
use crate::session::Session;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Generated prompts on which accuracy is measured, up to 10,000 in the notebook; 0 leaves the ablation study out.
    #[arg(long, default_value_t = 1000, value_parser = at_most_a_million)]
    prompts: usize,
    /// Generated pairs over which correlations with activation patching are averaged; 0 leaves them
    /// out. Without it 100, or 5 for a model of more than 10,000 neurons.
    #[arg(long, value_name = "N", value_parser = at_most_a_million)]
    generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Heads to ablate besides the outliers: LAYER.HEAD, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = layer_and_head)]
    heads: Vec<Head>,
    /// Nodes of the quadrature.
    #[arg(long, default_value_t = Quadrature::default().steps, value_parser = at_least_one)]
    steps: usize,
    /// gauss-legendre, riemann-left, riemann-right, riemann-middle, trapezoid.
    #[arg(long, default_value_t = Quadrature::default().rule)]
    rule: Rule,
    /// How far attributions may be from summing to the metric's change, as a share of it and of a hundredth of what cancels in it; more
    /// steps are taken until they are nearer, and where that does not help it is an error.
    #[arg(long, default_value_t = 0.001, value_parser = tolerance)]
    tolerance: f64,
    /// How far the interpolation curves go beyond the clean (0) and the corrupted (1) activation.
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], default_values_t = [-2.0, 3.0], allow_negative_numbers = true)]
    range: Vec<f64>,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ig")]
    out: PathBuf,
    #[command(flatten)]
    wait: WaitArguments,
}

fn layer_and_head(text: &str) -> Result<Head, String> {
    let parts = text.split_once('.').and_then(|(layer, head)| Some(Head::new(layer.parse().ok()?, head.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is no head; heads are LAYER.HEAD, such as 9.6"))
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory)?;
    let range = match *arguments.range.as_slice() {
        [from, to] if from <= 0.0 && to >= 1.0 && (to - from).is_finite() => [from, to],
        _ => anyhow::bail!("--range {:?}: it must hold all from 0 to 1, the two activations", arguments.range),
    };
    let quadrature = Quadrature { rule: arguments.rule, steps: arguments.steps };
    quadrature.nodes()?;
    let source = Source::open(&arguments.model)?;
    let settings = Settings {
        prompts: arguments.prompts,
        generated_pairs: arguments.generated_pairs,
        seed: arguments.seed,
        heads: arguments.heads.clone(),
        quadrature,
        tolerance: arguments.tolerance,
        range,
    };
    let prompts = Prompts::new(source.tokenizer()?, source.bos_for_text()?, &source.config, &settings)?;
    check_heads(&source, &arguments.heads)?;
    let directory = arguments.wait.take(&arguments.out, &RESULTS)?;
    announce(&source)?;

    let known = if source.is_gpt2_small() { KnownModel::Gpt2Small } else { KnownModel::Other };
    let found = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let tokenizer = source.tokenizer()?;
        Ok(integrated_gradients::analyse(&model, &session.setup(), tokenizer, known, &prompts, &settings)?)
    })?;
    let checks = if source.is_gpt2_small() { integrated_gradients::checks(&found) } else { Vec::new() };
    let warnings = warn(&source, [("", found.compared.exact.warnings())]);

    let page = report::page(&session, &source, &prompts, &found, &checks, arguments, &warnings);
    Publication {
        tables: results::tables(&found),
        metric: "logit-diff".to_owned(),
        seed: arguments.seed,
        labels: rewire_report::Labels::First(&prompts.pair),
        baselines: rewire_report::describe_baselines(&found.compared.exact.baselines),
        notes: results::notes(&found, arguments),
        page,
        files: Vec::new(),
        summary: results::summary(&session, &source, &found, &checks, arguments),
        warnings,
    }
    .publish(&session, &source, &directory)
}

/// Refuses heads that the model does not have, or that are named twice.
fn check_heads(source: &Source, heads: &[Head]) -> anyhow::Result<()> {
    let (layers, of_layer) = (source.config.n_layers, source.config.n_heads);
    for (i, &Head { layer, head }) in heads.iter().enumerate() {
        if layer >= layers || head >= of_layer {
            anyhow::bail!("--heads {layer}.{head}: the model has {layers} layers of {of_layer} heads, counted from 0");
        }
        if heads[..i].contains(&heads[i]) {
            anyhow::bail!("--heads names {layer}.{head} twice");
        }
    }
    Ok(())
}
