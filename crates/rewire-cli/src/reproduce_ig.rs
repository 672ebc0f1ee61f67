//! `cargo xtask reproduce-ig`: compares integrated gradients with activation patching, and both
//! with ablation.

mod arguments;
mod finding;
mod report;
mod results;
mod shown;
mod summary;

use burn::backend::Autodiff;
use rewire_analysis::integrated::Quadrature;
use rewire_analysis::run::Checkpoint;
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_report::Labels;
use rewire_store::OutputDirectory;
use rewire_studies::KnownModel;
use rewire_studies::integrated_gradients::{self, Found, Prompts, Settings};
use serde_json::Value;
use std::convert::Infallible;

use crate::correct::describe_logit_differences;
use crate::identity::identity;
use crate::interrupt::Interrupts;
use crate::model::Source;
use crate::notices::{announce, announce_names, warn};
use crate::on_device::on_device;
use crate::output::say;
use crate::publish::Publication;
use crate::session::Session;
use crate::shards::study::run_study;
use crate::shards::{Basis, Counted, Divisible, with_setup};
pub(crate) use arguments::Arguments;
use shown::Shown;

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    run_study(&Prepared::read(arguments, interrupts)?, &arguments.shard, interrupts)
}

/// The inputs of the study.
pub(crate) struct Prepared<'a> {
    arguments: &'a Arguments,
    session: Session,
    source: Source,
    settings: Settings,
    prompts: Prompts,
    /// Everything that the results depend on.
    run: Value,
}

impl<'a> Prepared<'a> {
    /// Reads and checks the inputs.
    pub(crate) fn read(arguments: &'a Arguments, interrupts: &Interrupts) -> anyhow::Result<Self> {
        let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
        let settings = settings(arguments)?;
        let source = Source::open(&arguments.model)?;
        let prompts = Prompts::new(source.tokenizer()?, source.bos_for_text()?, &source.config, &settings)?;
        check_heads(&source, &arguments.heads)?;
        let run = identity("reproduce-ig", &session, &source, arguments.describe())?;
        Ok(Self { arguments, session, source, settings, prompts, run })
    }
}

impl Divisible for Prepared<'_> {
    type Found = Found;
    type Memory = Infallible;

    fn basis(&self) -> Basis<'_> {
        let Self { arguments, session, source, run, .. } = self;
        Basis { session, source, run, out: &arguments.out, output: &arguments.output }
    }

    fn set_command(&mut self, command: Vec<String>) {
        self.session.set_command(command);
    }

    fn announce(&self, _: Option<Infallible>) -> anyhow::Result<()> {
        announce(&self.source)?;
        announce_names(&self.source)
    }

    fn compute(&self, checkpoint: &dyn Checkpoint, counted: Counted) -> anyhow::Result<Found> {
        let Self { session, source, settings, prompts, .. } = self;
        let known = if source.is_gpt2_small() { KnownModel::Gpt2Small } else { KnownModel::Other };
        on_device!(session, |B, device| {
            let model: Transformer<Autodiff<B>> = source.load(&device)?;
            let tokenizer = source.tokenizer()?;
            with_setup(session, checkpoint, counted, |setup| {
                Ok(integrated_gradients::analyze(&model, setup, tokenizer, known, prompts, settings)?)
            })
        })
    }

    fn write(&self, found: Found, directory: &OutputDirectory) -> anyhow::Result<String> {
        let Self { arguments, session, source, prompts, run, .. } = self;
        let checks = if source.is_gpt2_small() { integrated_gradients::checks(&found) } else { Vec::new() };
        let mut warnings = warn(source, [("", found.compared.exact.warnings())]);
        let of_pairs = found.averaged.iter().flat_map(|averaged| averaged.incomplete.clone());
        for incomplete in found.compared.incomplete().into_iter().chain(of_pairs) {
            say(&format!("warning: {incomplete}"));
            warnings.push(incomplete);
        }

        let finding = finding::finding(&found);
        let shown = Shown { prompts, found: &found, finding: &finding, checks: &checks, warnings: &warnings };
        let page = report::page(session, source, &shown, arguments);
        let summary = summary::summary(session, source, &shown, arguments) + "\n";
        Publication {
            run: run.clone(),
            tables: results::tables(&found),
            metric: "logit-diff".to_owned(),
            seed: arguments.seed,
            labels: Labels::First(&prompts.pair),
            baselines: describe_logit_differences(&found.compared.exact.baselines),
            notes: results::notes(&found, arguments),
            page,
            files: Vec::new(),
            summary,
            warnings,
        }
        .write(session, source, directory)
    }
}

/// Returns the settings of the study, and refuses a range or quadrature that is not valid.
fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let range = match *arguments.range.as_slice() {
        [from, to] if from <= 0.0 && to >= 1.0 && (to - from).is_finite() => [from, to],
        _ => anyhow::bail!(
            "--range {:?}: the range must include all from 0 to 1, the clean and the corrupted activation",
            arguments.range
        ),
    };
    let quadrature = Quadrature { rule: arguments.rule, steps: arguments.steps };
    quadrature.nodes()?;
    Ok(Settings {
        prompts: arguments.prompts,
        generated_pairs: arguments.generated_pairs,
        seed: arguments.seed,
        heads: arguments.heads.clone(),
        quadrature,
        tolerance: arguments.tolerance,
        panels: arguments.panels,
        range,
    })
}

/// Refuses heads that the model does not have, and heads that are named twice.
fn check_heads(source: &Source, heads: &[Head]) -> anyhow::Result<()> {
    let (layers, of_layer) = (source.config.n_layers, source.config.n_heads);
    for (i, &Head { layer, head }) in heads.iter().enumerate() {
        if layer >= layers || head >= of_layer {
            anyhow::bail!("--heads {}: the model has {layers} layers of {of_layer} heads, counted from 0", heads[i]);
        }
        if heads[..i].contains(&heads[i]) {
            anyhow::bail!("--heads names {} twice: name each head once", heads[i]);
        }
    }
    Ok(())
}
