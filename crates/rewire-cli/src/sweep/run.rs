//! One run of `sweep`: it reads the inputs, computes, and writes the results.

use std::path::Path;

use burn::backend::Autodiff;
use rewire_analysis::AnalysisError;
use rewire_model::Transformer;
use rewire_report::{Certainty, Labels, describe_baselines};
use rewire_tasks::{PairsFile, PromptPairs};

use super::analyze::{Run, analyze};
use super::arguments::Arguments;
use super::checkpoint::SweepCheckpoint;
use super::findings::Findings;
use super::identity::{identity, of_results};
use super::inputs::Inputs;
use super::{report, results, sample};
use crate::interrupt::Interrupts;
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, warn};
use crate::on_device::on_device;
use crate::output::say;
use crate::publish::{Publication, RESULTS, tell};
use crate::session::Session;

/// Runs `sweep`.
pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let ModelArguments { device, memory, .. } = &arguments.model;
    let session = Session::with_numbers(*device, arguments.numbers, memory, interrupts)?;
    let source = Source::open(&arguments.model)?;
    let PairsFile { pairs, warnings, .. } = arguments.file.reading.read(&arguments.file.pairs, &source)?;
    let nodes = arguments.kinds()?;
    let reference = arguments.reference(&source, &pairs)?;
    if arguments.intervals {
        check_clusters(&pairs, &arguments.file.pairs)?;
    }
    let inputs = Inputs { pairs: &pairs, nodes: &nodes, reference: &reference };
    let identity = identity(arguments, &session, &source, inputs)?;
    let run = of_results(&identity, arguments);
    let directory = arguments.output.take(&arguments.out, &RESULTS, &run, interrupts)?;
    let record = arguments.output.record(&directory, &identity)?;
    record.notices().iter().for_each(|notice| say(&format!("warning: {notice}")));
    let checkpoint = SweepCheckpoint::new(record, interrupts);
    announce(&source)?;
    let mut found = match compute(arguments, &session, &source, inputs, &checkpoint) {
        Ok(found) => found,
        Err(error) => {
            // The same command would be refused again, and would not use the checkpoint.
            if !is_of_the_machine(&error) {
                checkpoint.remove()?;
            }
            return Err(error);
        }
    };
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    found.warnings = [warnings, warn(&source, [("", found.outcome.warnings())])].concat();
    let clusters = pairs.clusters();
    found.certainty = found.outcome.effects.iter().map(|e| Certainty::new(e, &clusters, arguments.seed)).collect();

    let publication = Publication {
        run,
        tables: results::tables(&found, arguments),
        metric: arguments.metric_name(),
        seed: arguments.seed,
        labels: Labels::Each(&pairs),
        baselines: describe_baselines(&found.outcome.baselines),
        warnings: found.warnings.clone(),
        notes: results::notes(&found, &pairs, &identity, arguments),
        page: report::page(&session, &source, &pairs, &found, arguments),
        files: Vec::new(),
        summary: results::summary(&found, &pairs, arguments),
    };
    let summary = publication.write(&session, &source, &directory)?;
    checkpoint.remove()?;
    tell(&session, &arguments.out, &summary)
}

/// Loads the model and runs the sweep. If numbers are shorter than float32, also measures their
/// errors on a sample of prompts.
fn compute(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    inputs: Inputs,
    checkpoint: &SweepCheckpoint,
) -> anyhow::Result<Findings> {
    on_device!(session, |B, device| {
        let load = || -> anyhow::Result<Transformer<Autodiff<B>>> { Ok(source.load(&device)?) };
        let model = load()?.to_precision(arguments.numbers.dtype);
        let setup = session.setup();
        let run = Run { setup, checkpoint, scale: arguments.scale(), what: "sweep" };
        let mut found = analyze(&model, inputs, arguments, run)?;
        if arguments.numbers.are_short() {
            found.shortened = Some(sample::compare(&load()?, &model, setup, inputs, arguments)?);
        }
        anyhow::Ok(found)
    })
}

/// Returns whether the device or the disk caused the failure of a sweep, and not its arguments.
fn is_of_the_machine(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(refused) => matches!(refused, AnalysisError::Device(_) | AnalysisError::Checkpoint(_)),
        None => true,
    }
}

/// Refuses pairs that form fewer than two clusters. `path` is the file of the pairs.
fn check_clusters(pairs: &PromptPairs, path: &Path) -> anyhow::Result<()> {
    match (pairs.len(), pairs.clusters().len()) {
        (1, _) => anyhow::bail!(
            "--intervals needs at least 2 prompt pairs, and --pairs has 1; add pairs or remove --intervals"
        ),
        (n, 1) => anyhow::bail!(
            "--intervals needs independent pairs; all {n} pairs in {} are the same two prompts, in either order; add \
             other pairs or remove --intervals",
            path.display()
        ),
        _ => Ok(()),
    }
}
