//! One run of `sweep`: it reads the inputs, computes, and writes the results.

use rewire_analysis::AnalysisError;

use super::arguments::Arguments;
use super::checkpoint::SweepCheckpoint;
use super::prepared::Prepared;
use crate::interrupt::Interrupts;
use crate::output::say;
use crate::publish::{RESULTS, tell};
use crate::shards::{Counted, Divisible, compute};

/// Runs `sweep`.
pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    if let Some(choice) = arguments.shard() {
        let part = choice.part(|name| std::env::var(name).ok())?;
        return compute::run(&Prepared::read(arguments, interrupts)?, part, interrupts);
    }
    let prepared = Prepared::read(arguments, interrupts)?;
    let summary = complete(&prepared, interrupts)?;
    tell(&prepared.session, &arguments.out, &summary)
}

/// How a cell of a grid was finished.
pub(crate) enum CellRun {
    /// By an earlier command.
    Before,
    /// By this command, in so many seconds.
    Now(f64),
}

/// Runs `sweep` for a cell of a grid, unless its directory holds its results. `command` is the
/// command line of the cell alone, and `step` the name of its progress bar. Prints no summary.
pub(crate) fn run_cell(
    arguments: &Arguments,
    command: &[String],
    step: String,
    interrupts: &Interrupts,
) -> anyhow::Result<CellRun> {
    let mut prepared = Prepared::read(arguments, interrupts)?;
    prepared.session.set_command(command.to_vec());
    prepared.step = step;
    if arguments.output.is_finished(&arguments.out, &RESULTS, &prepared.run) {
        return Ok(CellRun::Before);
    }
    complete(&prepared, interrupts)?;
    Ok(CellRun::Now(prepared.session.seconds()))
}

/// Computes and writes the results of a sweep; returns the summary.
fn complete(prepared: &Prepared, interrupts: &Interrupts) -> anyhow::Result<String> {
    let Arguments { out, output, .. } = prepared.arguments;
    let memory = prepared.memory()?;
    let directory = output.take(out, &RESULTS, &prepared.run, interrupts)?;
    let record = output.record(&directory, &prepared.identity)?;
    record.notices().iter().for_each(|notice| say(&format!("warning: {notice}")));
    let checkpoint = SweepCheckpoint::new(record, interrupts);
    prepared.announce(memory)?;
    let found = match prepared.compute(&checkpoint, Counted::Patches) {
        Ok(found) => found,
        Err(error) => {
            // The same command would be refused again, and would not use the checkpoint.
            if !is_of_the_machine(&error) {
                checkpoint.remove()?;
            }
            return Err(error);
        }
    };
    let summary = prepared.write(found, &directory)?;
    checkpoint.remove()?;
    Ok(summary)
}

/// Returns whether the device or the disk caused the failure of a sweep, and not its arguments.
fn is_of_the_machine(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(refused) => matches!(refused, AnalysisError::Device(_) | AnalysisError::Checkpoint(_)),
        None => true,
    }
}
