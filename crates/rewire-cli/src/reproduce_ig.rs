//! `cargo xtask reproduce-ig`: compares integrated gradients with activation patching, and both
//! with ablation.

mod arguments;
mod report;
mod results;

use burn::backend::Autodiff;
use rewire_analysis::integrated::Quadrature;
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_studies::KnownModel;
use rewire_studies::integrated_gradients::{self, Prompts, Settings};

use crate::identity::identity;
use crate::interrupt::Interrupts;
use crate::model::Source;
use crate::notices::{announce, warn};
use crate::on_device::on_device;
use crate::publish::{Publication, RESULTS};
use crate::session::Session;
pub(crate) use arguments::Arguments;

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
    let range = match *arguments.range.as_slice() {
        [from, to] if from <= 0.0 && to >= 1.0 && (to - from).is_finite() => [from, to],
        _ => anyhow::bail!(
            "--range {:?}: the range must include all from 0 to 1, the clean and the corrupted activation",
            arguments.range
        ),
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
    let run = identity("reproduce-ig", &session, &source, arguments.describe())?;
    let directory = arguments.output.take(&arguments.out, &RESULTS, &run, interrupts)?;
    announce(&source)?;

    let known = if source.is_gpt2_small() { KnownModel::Gpt2Small } else { KnownModel::Other };
    let found = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let tokenizer = source.tokenizer()?;
        Ok(integrated_gradients::analyze(&model, &session.setup(), tokenizer, known, &prompts, &settings)?)
    })?;
    let checks = if source.is_gpt2_small() { integrated_gradients::checks(&found) } else { Vec::new() };
    let warnings = warn(&source, [("", found.compared.exact.warnings())]);

    let page = report::page(&session, &source, &prompts, &found, &checks, arguments, &warnings);
    Publication {
        run,
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

/// Refuses heads that the model does not have, and heads that are named twice.
fn check_heads(source: &Source, heads: &[Head]) -> anyhow::Result<()> {
    let (layers, of_layer) = (source.config.n_layers, source.config.n_heads);
    for (i, &Head { layer, head }) in heads.iter().enumerate() {
        if layer >= layers || head >= of_layer {
            anyhow::bail!("--heads {layer}.{head}: the model has {layers} layers of {of_layer} heads, counted from 0");
        }
        if heads[..i].contains(&heads[i]) {
            anyhow::bail!("--heads names {layer}.{head} twice: name each head once");
        }
    }
    Ok(())
}
