//! Commands whose passes several processes can share, each in a shard of its own.

pub(crate) mod choice;
pub(crate) mod compute;
pub(crate) mod merged;
pub(crate) mod study;

use std::path::Path;

use anyhow::bail;
use rewire_analysis::AnalysisError;
use rewire_analysis::run::{Checkpoint, PlannedWork, WorkId};
use rewire_store::{OutputDirectory, sha256};
use rewire_studies::{Setup, StudyError};
use serde_json::{Value, json};

use crate::Command;
use crate::model::Source;
use crate::output::OutputArguments;
use crate::session::Session;
use choice::ShardChoice;

/// A command with its inputs, read and checked, whose passes several processes can share.
pub(crate) trait Divisible {
    /// The results of the analyses.
    type Found;
    /// The memory that the command will take.
    type Memory;

    /// Returns what every command has.
    fn basis(&self) -> Basis<'_>;

    /// Sets the command line that the results describe: that of the merged shards.
    fn set_command(&mut self, command: Vec<String>);

    /// Returns the memory that the command will take, and refuses a command that takes more than is
    /// free. `None` on a GPU, and for a study.
    fn memory(&self) -> anyhow::Result<Option<Self::Memory>> {
        Ok(None)
    }

    /// Prints notices about the model and the prompts, and the memory that the work will take. Call
    /// this before the work, which may take hours or be refused for the same reason.
    fn announce(&self, memory: Option<Self::Memory>) -> anyhow::Result<()>;

    /// Loads the model and runs the analyses.
    ///
    /// # Errors
    /// For example [`AnalysisError::PassesLeft`] if `checkpoint` does not take all passes.
    fn compute(&self, checkpoint: &dyn Checkpoint, counted: Counted) -> anyhow::Result<Self::Found>;

    /// Writes the results; returns the summary.
    fn write(&self, found: Self::Found, directory: &OutputDirectory) -> anyhow::Result<String>;
}

/// What every command whose passes can be shared has.
pub(crate) struct Basis<'a> {
    pub(crate) session: &'a Session,
    pub(crate) source: &'a Source,
    /// Everything that the results depend on.
    pub(crate) run: &'a Value,
    /// The output directory.
    pub(crate) out: &'a Path,
    pub(crate) output: &'a OutputArguments,
}

/// The reason why `reproduce-pythia` has no shards.
pub(crate) const OF_STEPS: &str = "reproduce-pythia cannot be divided into shards: each of its steps patches into \
                                   the heads that the step before it found; run it in one process";

/// What the progress bar counts.
#[derive(Clone, Copy)]
pub(crate) enum Counted {
    /// Patches, as the analyses report them.
    Patches,
    /// Passes, as the checkpoint of a shard reports them.
    Passes,
}

/// Runs the analyses of a study with the settings of a session.
pub(crate) fn with_setup<T>(
    session: &Session,
    checkpoint: &dyn Checkpoint,
    counted: Counted,
    analyze: impl FnOnce(&Setup<'_>) -> T,
) -> T {
    let setup = session.setup();
    match counted {
        Counted::Patches => analyze(&Setup { checkpoint, ..setup }),
        Counted::Passes => setup.step("shard", |_| analyze(&Setup { checkpoint, on_progress: &|_| {}, ..setup })),
    }
}

/// Returns the output directory of a command, and its choice of a shard.
///
/// # Errors
/// If the command cannot be divided into shards.
pub(crate) fn of(command: &Command) -> anyhow::Result<(&Path, Option<ShardChoice>)> {
    match command {
        Command::Sweep(sweep) => Ok((sweep.out(), sweep.shard())),
        Command::ReproduceIoi(study) => Ok((study.out(), study.shard.shard)),
        Command::ReproduceIg(study) => Ok((study.out(), study.shard.shard)),
        Command::ReproduceFacts(study) => Ok((study.out(), study.shard.shard)),
        Command::ReproducePythia(_) => bail!(OF_STEPS),
        _ => bail!(
            "only sweep, reproduce-ioi, reproduce-ig and reproduce-facts can be divided into shards, such as `sweep \
             --pairs FILE ..`"
        ),
    }
}

/// Returns the identity of the shards of a run, from the identity of its results. Weights are
/// identified by their contents, because the nodes of a cluster may have their own copies.
fn identity(run: &Value, source: &Source) -> anyhow::Result<Value> {
    let mut shards = run.clone();
    shards["model"] = json!(source.sha256s()?);
    Ok(shards)
}

/// Returns whether the analyses ended because the other passes are those of other shards.
pub(crate) fn is_expected(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(AnalysisError::PassesLeft))
        || error.downcast_ref().is_some_and(StudyError::is_of_passes_left)
}

/// Returns a hash of a list of passes. Shards whose lists differ cannot be merged.
fn hash(passes: &[PlannedWork]) -> String {
    let text: String = passes
        .iter()
        .map(|PlannedWork { id: WorkId { batch, number, plan }, .. }| format!("{batch} {number} {plan}\n"))
        .collect();
    sha256(text.as_bytes())
}
