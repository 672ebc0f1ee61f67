//! The output directory. One run locks it and writes its results there.

use std::path::Path;

use clap::Args;
use rewire_store::{OtherShards, OutputDirectory, Record, StoreError, Waiting};
use serde_json::Value;

use super::finished;
use super::printing::say;
use crate::headings::OUTPUT;
use crate::interrupt::Interrupts;

/// Returns the arguments of this command line, without the program. Replaces bytes that are not
/// UTF-8.
pub(crate) fn command() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The choice of whether a command waits for another run that writes to its output directory.
#[derive(Args)]
pub struct WaitArguments {
    /// Wait for another run that writes to --out, instead of failing.
    #[arg(long, help_heading = OUTPUT)]
    wait: bool,
}

impl WaitArguments {
    /// Locks the output directory for this run, which will write files with the names `results`.
    ///
    /// # Errors
    /// If another run is writing there and `--wait` is not given, or the directory cannot be used.
    pub fn take(&self, out: &Path, results: &[&str]) -> Result<OutputDirectory, StoreError> {
        let tell =
            |holder: &str| say(&format!("waiting for another run that is writing to {} ({holder})", out.display()));
        let waiting = if self.wait { Waiting::Wait(&tell) } else { Waiting::Refuse };
        let taken = OutputDirectory::take(out, results, &command().join(" "), waiting)?;
        taken.notices().iter().for_each(|notice| say(notice));
        Ok(taken)
    }
}

/// The choices of a command whose output directory is in use, or holds the work of another run.
#[derive(Args)]
pub(crate) struct OutputArguments {
    #[command(flatten)]
    wait: WaitArguments,
    /// Replace what another command left in --out.
    ///
    /// Without this flag, a command refuses a directory that holds the results of a run with other
    /// settings, or an unfinished run of them. The same command may always replace its own results.
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
}

impl OutputArguments {
    /// Locks the output directory for this run, which will write files with the names `results`.
    /// `run` is everything that they depend on. From now on, Ctrl-C ends a command that computes.
    ///
    /// # Errors
    /// If another run is writing there and `--wait` is not given, if the directory holds the
    /// results of another run and `--force` is not given, or if the directory cannot be used.
    pub(crate) fn take(
        &self,
        out: &Path,
        results: &[&str],
        run: &Value,
        interrupts: &Interrupts,
    ) -> anyhow::Result<OutputDirectory> {
        let directory = self.wait.take(out, results)?;
        self.check(out, results, run)?;
        interrupts.begin_computing(directory.traces());
        Ok(directory)
    }

    /// Refuses an output directory that holds the results of another run, unless `--force` is
    /// given.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn check(&self, out: &Path, results: &[&str], run: &Value) -> anyhow::Result<()> {
        if self.force { Ok(()) } else { finished::check(out, results, run) }
    }

    /// Returns whether the output directory holds the results of this very run.
    pub(crate) fn is_finished(&self, out: &Path, results: &[&str], run: &Value) -> bool {
        finished::is_of(out, results, run)
    }

    /// Returns whether the results of another command may be replaced.
    pub(crate) fn may_replace(&self) -> bool {
        self.force
    }

    /// Locks the output directory for a table over many runs, with files of the names `results`.
    ///
    /// # Errors
    /// As [`WaitArguments::take`].
    pub(crate) fn take_table(&self, out: &Path, results: &[&str]) -> Result<OutputDirectory, StoreError> {
        self.wait.take(out, results)
    }

    /// Returns the given flags, as words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let flags = [(self.wait.wait, "--wait"), (self.force, "--force")];
        flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned()).collect()
    }

    /// Returns what to do with shards of another run.
    pub(crate) fn other_shards(&self) -> OtherShards {
        if self.force { OtherShards::Remove } else { OtherShards::Refuse }
    }

    /// Opens the record of the unfinished run that `identity` describes. With `--force`, removes
    /// the record of another run.
    ///
    /// # Errors
    /// As [`Record::open`].
    pub(crate) fn record<'d>(
        &self,
        directory: &'d OutputDirectory,
        identity: &Value,
    ) -> Result<Record<'d>, StoreError> {
        match Record::open(directory, identity) {
            Err(StoreError::OtherRun { record, .. }) if self.force => {
                std::fs::remove_file(&record).map_err(|source| StoreError::Write { path: record, source })?;
                Record::open(directory, identity)
            }
            opened => opened,
        }
    }
}
