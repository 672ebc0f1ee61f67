//! `cargo xtask reproduce-pythia`: finds the circuit for indirect object identification with the
//! steps of the Pythia notebook.

mod arguments;
mod finding;
mod json;
mod report;
mod rows;
mod sentences;
mod shown;
mod summary;
mod tables;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use rewire_model::Transformer;
use rewire_report::Labels;
use rewire_studies::pythia::{self, Sets};

use crate::correct::describe_logit_differences;
use crate::identity::identity;
use crate::interrupt::Interrupts;
use crate::model::Source;
use crate::notices::{announce, announce_names, warn};
use crate::on_device::on_device;
use crate::publish::{Publication, REPORT};
use crate::session::Session;
pub(crate) use arguments::Arguments;
use shown::Found;

/// Names of the files that the command writes.
const RESULTS: [&str; 6] =
    ["effects.safetensors", "effects.csv", "effects.json", "circuit.json", "circuit.dot", REPORT];

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
    arguments.check()?;
    let source = Source::open(&arguments.model)?;
    anyhow::ensure!(
        source.config.n_layers > 1,
        "the model has one layer and so no paths between heads: use a model with at least 2 layers"
    );
    let tokenizer = source.tokenizer()?;
    let settings = arguments.settings();
    let sets = Sets::new(tokenizer, source.bos_for_text()?, &settings)?;
    sets.check_model(source.config.d_vocab, source.config.n_ctx)?;
    let run = identity("reproduce-pythia", &session, &source, arguments.describe())?;
    let directory = arguments.output.take(&arguments.out, &RESULTS, &run, interrupts)?;
    announce(&source)?;
    announce_names(&source)?;
    let (found, checks) = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let setup = session.setup();
        let found = pythia::analyze(&model, &setup, tokenizer, sets, &settings)?;
        let checks = match source.is_processed() && pythia::is_the_notebooks_model(&source.name, &source.config) {
            true => pythia::checks(&model.valid(), &setup, tokenizer)?,
            false => Vec::new(),
        };
        anyhow::Ok((found, checks))
    })?;

    let found = Found::new(&found, arguments);
    let warnings = warn(&source, [("", found.parts.warnings())]);
    let described = json::circuit(&session, &source, &found, arguments)?;
    let finding = finding::finding(&found, arguments.threshold);
    let page = report::page(&session, &source, &found, &finding, &checks, arguments, &warnings);
    Publication {
        run,
        tables: tables::tables(&found),
        metric: "logit-diff-normalized".to_owned(),
        seed: arguments.seed,
        labels: Labels::Each(&found.data.pairs),
        baselines: describe_logit_differences(&found.parts.baselines),
        notes: json::notes(&found, arguments),
        page,
        files: vec![
            ("circuit.json", format!("{described:#}\n").into_bytes()),
            ("circuit.dot", found.graph.to_dot().into_bytes()),
        ],
        summary: summary::summary(&session, &source, &found, &finding, &checks),
        warnings,
    }
    .publish(&session, &source, &directory)
}
