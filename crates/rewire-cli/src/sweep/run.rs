//! One run of `sweep`: it reads the inputs, computes, and writes the results.

use std::path::Path;

use anyhow::Context;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use rewire_analysis::AnalysisError;
use rewire_analysis::node::By;
use rewire_model::Transformer;
use rewire_report::{Certainty, Labels, PairsOrigin};
use rewire_store::sha256;
use rewire_tasks::{Format, Margin, PairsFile, PromptPairs};

use super::analyze::{Run, analyze};
use super::arguments::Arguments;
use super::checkpoint::SweepCheckpoint;
use super::choices::AlignName;
use super::correct::Correct;
use super::doubts;
use super::findings::Findings;
use super::identity::{identity, of_results};
use super::inputs::Inputs;
use super::{equal_runs, report, results, sample};
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
    let PairsFile { pairs, format, mut warnings } = arguments.read_pairs(&arguments.file.pairs, &source)?;
    check_marks(&pairs, format, arguments)?;
    let origin = origin(&arguments.file.pairs, format)?;
    let single = arguments.single()?;
    let nodes = arguments.kinds()?;
    arguments.metric_positions(&pairs)?;
    let reference = arguments.reference(&source, &pairs)?;
    warnings.extend(equal_runs::warnings(&pairs, &reference, arguments)?);
    if arguments.intervals {
        check_clusters(&pairs, &arguments.file.pairs)?;
    }
    let inputs = Inputs { pairs: &pairs, nodes: &nodes, single: single.as_ref(), reference: &reference };
    let identity = identity(arguments, &session, &source, inputs)?;
    let run = of_results(&identity, arguments);
    let directory = arguments.output.take(&arguments.out, &RESULTS, &run, interrupts)?;
    let record = arguments.output.record(&directory, &identity)?;
    record.notices().iter().for_each(|notice| say(&format!("warning: {notice}")));
    let checkpoint = SweepCheckpoint::new(record, interrupts);
    announce(&source)?;
    // Before the work, which may take hours or be refused for the same reason.
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
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
    if arguments.align == AlignName::End {
        found.outcome = found.outcome.aligned_at_end();
    }
    found.warnings = [warnings, warn(&source, [("", found.outcome.warnings())])].concat();
    for doubt in doubts::of_baselines(&found.outcome).into_iter().chain(found.correct.and_then(Correct::doubt)) {
        say(&format!("warning: {doubt}"));
        found.warnings.push(doubt);
    }
    let clusters = pairs.clusters();
    found.certainty = found.outcome.effects.iter().map(|e| Certainty::new(e, &clusters, arguments.seed)).collect();

    let publication = Publication {
        run,
        tables: results::tables(&found, &pairs, arguments),
        metric: arguments.metric_name(),
        seed: arguments.seed,
        labels: Labels::FromFile(&pairs, origin),
        baselines: results::baselines(&found),
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
        let (pairs, inner) = (inputs.pairs, model.valid());
        let prompt_batch = arguments.prompt_batch.unwrap_or(setup.execution(&inner, pairs.width()).prompt_batch);
        let margin = Margin::new(pairs).at(arguments.metric_positions(pairs)?);
        found.correct = Correct::count(&inner, pairs, &margin, &found.outcome, prompt_batch)?;
        if arguments.numbers.are_short() {
            found.shortened = Some(sample::compare(&load()?, &model, setup, inputs, arguments)?);
        }
        anyhow::Ok(found)
    })
}

/// Returns the name, hash and format of the file of the pairs.
fn origin(path: &Path, format: Format) -> anyhow::Result<PairsOrigin> {
    // A pipe can be read only once.
    let file_sha256 = match std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
        true => Some(sha256(&std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)),
        false => None,
    };
    Ok(PairsOrigin { file: path.display().to_string(), file_sha256, format: format.to_string() })
}

/// Returns whether the device or the disk caused the failure of a sweep, and not its arguments.
fn is_of_the_machine(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(refused) => matches!(refused, AnalysisError::Device(_) | AnalysisError::Checkpoint(_)),
        None => true,
    }
}

/// Refuses `--by marked` for a file of auto-circuit of which no word is chosen.
fn check_marks(pairs: &PromptPairs, format: Format, arguments: &Arguments) -> anyhow::Result<()> {
    let is_marked = arguments.by.division() == By::Marked && pairs.marked_positions().is_none();
    anyhow::ensure!(
        !(is_marked && format == Format::AutoCircuit),
        "--by marked needs a marked position; name the word of `word_idxs` in {} with --mark",
        arguments.file.pairs.display()
    );
    Ok(())
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
