//! The inputs of a sweep, read and checked before anything is computed.

use std::path::Path;

use anyhow::Context;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use rewire_analysis::Method;
use rewire_analysis::node::{By, NodeKind};
use rewire_analysis::run::{Checkpoint, MemoryNeeds};
use rewire_model::Transformer;
use rewire_report::{Certainty, Labels, PairsOrigin};
use rewire_store::{OutputDirectory, sha256};
use rewire_tasks::{Format, Margin, PairsFile, PromptPairs};
use serde_json::Value;

use super::analyze::{Run, analyze};
use super::arguments::Arguments;
use super::choices::AlignName;
use super::findings::Findings;
use super::identity::{identity, of_results};
use super::inputs::Inputs;
use super::memory::{self, Memory};
use super::single::SingleNodes;
use super::{doubts, equal_runs, report, results, sample};
use crate::correct::Correct;
use crate::interrupt::Interrupts;
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, warn};
use crate::on_device::on_device;
use crate::output::say;
use crate::publish::{Contents, Publication};
use crate::session::Session;
use crate::shards::{Basis, Counted, Divisible};

/// The inputs of a sweep, and what they are identified by.
pub(crate) struct Prepared<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) session: Session,
    pub(super) source: Source,
    pairs: PromptPairs,
    pub(super) origin: PairsOrigin,
    single: Option<SingleNodes>,
    nodes: Vec<NodeKind>,
    reference: Vec<Vec<u32>>,
    warnings: Vec<String>,
    /// Name of the progress bar.
    pub(super) step: String,
    /// Everything that the passes depend on.
    pub(super) identity: Value,
    /// Everything that the results depend on.
    pub(super) run: Value,
}

impl<'a> Prepared<'a> {
    /// Reads and checks the inputs.
    pub(crate) fn read(arguments: &'a Arguments, interrupts: &Interrupts) -> anyhow::Result<Self> {
        let ModelArguments { device, memory: budget, .. } = &arguments.model;
        let session = Session::with_numbers(*device, arguments.numbers, budget, interrupts)?;
        let source = Source::open(&arguments.model)?;
        let PairsFile { pairs, format, mut warnings } = arguments.read_pairs(&arguments.file.pairs, &source)?;
        check_marks(&pairs, format, arguments)?;
        let origin = origin(&arguments.file.pairs, format)?;
        let single = arguments.single()?;
        let nodes = arguments.kinds()?;
        arguments.check_edges_of(&source.config)?;
        arguments.metric_positions(&pairs)?;
        let reference = arguments.reference(&source, &pairs)?;
        warnings.extend(equal_runs::warnings(&pairs, &reference, arguments)?);
        if arguments.intervals {
            check_clusters(&pairs, &arguments.file.pairs)?;
        }
        let inputs =
            Inputs { pairs: &pairs, nodes: &nodes, single: single.as_ref(), edges: None, reference: &reference };
        let identity = identity(arguments, &session, &source, inputs)?;
        let run = of_results(&identity, arguments);
        let step = "sweep".to_owned();
        Ok(Self { arguments, session, source, pairs, origin, single, nodes, reference, warnings, step, identity, run })
    }

    /// Returns the inputs of the method.
    pub(super) fn inputs(&self) -> Inputs<'_> {
        let Self { pairs, nodes, single, reference, .. } = self;
        Inputs { pairs, nodes, single: single.as_ref(), edges: None, reference }
    }

    /// Returns the memory of the sweep on another machine, with passes on `workers` threads at
    /// once.
    pub(super) fn memory_elsewhere(&self, workers: usize) -> anyhow::Result<MemoryNeeds> {
        memory::elsewhere(self.arguments, &self.session, &self.source, &self.pairs, workers)
    }

    /// Runs the method on these inputs instead of those of the sweep, and nothing else.
    pub(super) fn recompute(&self, inputs: Inputs) -> anyhow::Result<Findings> {
        let Self { arguments, session, source, .. } = self;
        on_device!(session, |B, device| {
            let model: Transformer<Autodiff<B>> = source.load(&device)?.to_precision(arguments.numbers.dtype);
            let (setup, scale) = (session.setup(), arguments.scale());
            let run = Run { setup, checkpoint: &(), scale, what: "verify", counted: Counted::Patches };
            analyze(&model, inputs, arguments, run)
        })
    }

    /// Returns the contents of the files of these findings.
    pub(super) fn contents(&self, found: Findings) -> anyhow::Result<Contents<'_>> {
        self.publication(found)?.contents(&self.session, &self.source)
    }

    /// Returns the findings as results that are ready to be written. Prints reasons to doubt them.
    fn publication(&self, mut found: Findings) -> anyhow::Result<Publication<'_>> {
        let Self { arguments, session, source, pairs, origin, warnings, identity, run, .. } = self;
        if arguments.align == AlignName::End {
            found.outcome = found.outcome.aligned_at_end();
        }
        found.warnings = [warnings.clone(), warn(source, [("", found.outcome.warnings())])].concat();
        let of_baselines = doubts::of_baselines(&found.outcome).into_iter().chain(doubts::of_cap(&found.outcome));
        for doubt in of_baselines.chain(found.correct.and_then(Correct::doubt)) {
            say(&format!("warning: {doubt}"));
            found.warnings.push(doubt);
        }
        let clusters = pairs.clusters();
        found.certainty = found.outcome.effects.iter().map(|e| Certainty::new(e, &clusters, arguments.seed)).collect();
        Ok(Publication {
            run: run.clone(),
            tables: results::tables(&found, pairs, arguments),
            metric: metric_name(&found, arguments),
            seed: arguments.seed,
            labels: Labels::FromFile(pairs, origin.clone()),
            baselines: results::baselines(&found),
            warnings: found.warnings.clone(),
            notes: results::notes(&found, pairs, identity, arguments),
            page: report::page(session, source, pairs, &found, arguments),
            files: Vec::new(),
            summary: results::summary(&found, pairs, arguments),
        })
    }
}

impl Divisible for Prepared<'_> {
    type Found = Findings;
    type Memory = Memory;

    fn basis(&self) -> Basis<'_> {
        let Self { arguments, session, source, run, .. } = self;
        Basis { session, source, run, out: &arguments.out, output: &arguments.output }
    }

    fn set_command(&mut self, command: Vec<String>) {
        self.session.set_command(command);
    }

    fn memory(&self) -> anyhow::Result<Option<Memory>> {
        memory::check(self.arguments, &self.session, &self.source, &self.pairs)
    }

    fn announce(&self, memory: Option<Memory>) -> anyhow::Result<()> {
        announce(&self.source)?;
        memory.iter().for_each(|memory| say(&format!("{}: {}", self.source.name, memory.line())));
        self.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        Ok(())
    }

    /// If numbers are shorter than float32, also measures their errors on a sample of prompts.
    fn compute(&self, checkpoint: &dyn Checkpoint, counted: Counted) -> anyhow::Result<Findings> {
        let Self { arguments, session, source, .. } = self;
        let inputs = self.inputs();
        on_device!(session, |B, device| {
            let load = || -> anyhow::Result<Transformer<Autodiff<B>>> { Ok(source.load(&device)?) };
            let model = load()?.to_precision(arguments.numbers.dtype);
            let setup = session.setup();
            let run = Run { setup, checkpoint, scale: arguments.scale(), what: &self.step, counted };
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

    fn write(&self, found: Findings, directory: &OutputDirectory) -> anyhow::Result<String> {
        self.publication(found)?.write(&self.session, &self.source, directory)
    }
}

/// Returns the name of the metric in which the results are given. Logit attribution names it
/// itself, because a bound on the logits changes it.
fn metric_name(found: &Findings, arguments: &Arguments) -> String {
    match found.outcome.method {
        Method::LogitAttribution => found.outcome.metric.to_owned(),
        _ => arguments.metric_name(),
    }
}

/// Returns the name, hash and format of the file of the pairs.
pub(crate) fn origin(path: &Path, format: Format) -> anyhow::Result<PairsOrigin> {
    // A pipe can be read only once.
    let file_sha256 = match std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
        true => Some(sha256(&std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)),
        false => None,
    };
    Ok(PairsOrigin { file: path.display().to_string(), file_sha256, format: format.to_string() })
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
