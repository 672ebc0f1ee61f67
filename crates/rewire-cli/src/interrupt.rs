//! Ctrl-C and SIGTERM: the first one stops a command that can resume after its present pass. Every
//! other one ends the process at once. Schedulers send SIGTERM some time before they kill a task.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rewire_store::Traces;

/// Exit code of an interrupted command: the code that shells give a process that SIGINT ended. It
/// is the same after SIGTERM.
pub(crate) const INTERRUPTED: u8 = 130;

/// How far a command is, for its reaction to Ctrl-C. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Interrupts(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    passes: Passes,
    is_requested: bool,
    /// What the process removes before it ends: the traces of each directory that it holds.
    traces: Vec<Traces>,
}

/// The stage that a command has reached.
#[derive(Debug, Default)]
enum Stage {
    /// The command reads its arguments, or computes no results.
    #[default]
    Starting,
    /// Nothing is written, except the finished passes of a sweep.
    Computing,
    /// Files are being replaced.
    Writing,
    /// The results are complete.
    Written,
}

/// The number of finished passes, and the number of all passes that a sweep has announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passes {
    pub(crate) done: usize,
    pub(crate) of: usize,
}

/// The reaction to one Ctrl-C: a line for standard error.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Continue(String),
    End(String),
}

/// The error of a command that stops because of Ctrl-C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Interrupts {
    /// Handles Ctrl-C, SIGTERM and SIGHUP from now on; `say` prints a line. A process has one
    /// handler, so only a program calls this, once.
    ///
    /// Does nothing if the process ignores SIGINT or SIGHUP, like a job that a script starts in the
    /// background, or with `nohup`.
    pub(crate) fn install(say: fn(&str)) -> Self {
        let interrupts = Self::default();
        let of_handler = interrupts.clone();
        let _ = ctrlc::try_set_handler(move || of_handler.receive(say));
        interrupts
    }

    /// Notes that the next of several runs begins, of which nothing is computed yet.
    ///
    /// # Errors
    /// [`Interrupted`] after a Ctrl-C that let the last run finish.
    pub(crate) fn begin_next(&self) -> Result<(), Interrupted> {
        let mut state = self.lock();
        state.check()?;
        *state = State::default();
        Ok(())
    }

    /// Notes that the command computes from now on, and holds a further output directory with these
    /// traces.
    pub(crate) fn begin_computing(&self, traces: Traces) {
        let mut state = self.lock();
        state.stage = Stage::Computing;
        state.traces.push(traces);
    }

    /// Adds the passes of an analysis, and returns the number of all passes so far. From now on,
    /// the same command can resume.
    pub(crate) fn announce(&self, passes: Passes) -> Passes {
        let mut state = self.lock();
        state.passes.done += passes.done;
        state.passes.of += passes.of;
        state.passes
    }

    /// Notes that a further pass is finished and stored.
    ///
    /// # Errors
    /// [`Interrupted`] after the first Ctrl-C.
    pub(crate) fn finish_pass(&self) -> Result<(), Interrupted> {
        let mut state = self.lock();
        state.passes.done += 1;
        state.check()
    }

    /// Notes that files are being replaced from now on.
    ///
    /// # Errors
    /// [`Interrupted`] after the first Ctrl-C.
    pub(crate) fn begin_writing(&self) -> Result<(), Interrupted> {
        let mut state = self.lock();
        state.check()?;
        state.stage = Stage::Writing;
        Ok(())
    }

    /// Notes that the results are complete.
    pub(crate) fn finish_writing(&self) {
        self.lock().stage = Stage::Written;
    }

    /// Returns the line that ends an interrupted command.
    pub(crate) fn summary(&self) -> String {
        self.lock().summary()
    }

    fn receive(&self, say: fn(&str)) {
        // The lock is held until the process ends, so that no writing begins in between.
        let mut state = self.lock();
        match state.receive() {
            Reaction::Continue(line) => say(&line),
            Reaction::End(line) => {
                say(&line);
                state.remove_traces();
                std::process::exit(INTERRUPTED.into());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> Result<(), Interrupted> {
        if self.is_requested { Err(Interrupted) } else { Ok(()) }
    }

    /// Removes the traces of all directories, the last one that was taken first.
    fn remove_traces(&self) {
        self.traces.iter().rev().for_each(Traces::remove);
    }

    fn receive(&mut self) -> Reaction {
        let is_first = !std::mem::replace(&mut self.is_requested, true);
        match self.stage {
            Stage::Computing if is_first && self.passes.of > 0 => Reaction::Continue(
                "interrupted: stopping after the present pass; the same command resumes from there (press Ctrl-C again \
                 to stop at once)"
                    .to_owned(),
            ),
            Stage::Writing if is_first => Reaction::Continue(
                "interrupted: the results are being written (press Ctrl-C again to stop at once)".to_owned(),
            ),
            _ => Reaction::End(self.summary()),
        }
    }

    fn summary(&self) -> String {
        let Passes { done, of } = self.passes;
        match self.stage {
            Stage::Computing if of > 0 => {
                format!("interrupted; {done} of {of} passes are done; run the same command again to resume")
            }
            Stage::Starting => "interrupted".to_owned(),
            Stage::Computing => "interrupted; nothing was written".to_owned(),
            Stage::Writing => {
                "interrupted while the results were being written; run the same command again to complete them"
                    .to_owned()
            }
            Stage::Written => "interrupted; the results are complete".to_owned(),
        }
    }
}

/// Returns whether a command stopped because of Ctrl-C.
pub(crate) fn is_interrupt(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        // A checkpoint returns the error of its storage.
        let stored = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause.is::<Interrupted>() || stored.is_some_and(|inner| inner.is::<Interrupted>())
    })
}

#[cfg(test)]
mod tests {
    use rewire_store::{OutputDirectory, Waiting};

    use super::*;

    fn receive(interrupts: &Interrupts) -> Reaction {
        interrupts.lock().receive()
    }

    fn end(line: &str) -> Reaction {
        Reaction::End(line.to_owned())
    }

    #[test]
    fn a_command_that_cannot_resume_ends_at_the_first_interrupt() {
        let interrupts = Interrupts::default();
        assert_eq!(receive(&interrupts), end("interrupted"));
        interrupts.lock().stage = Stage::Computing;
        assert_eq!(receive(&interrupts), end("interrupted; nothing was written"));
    }

    #[test]
    fn a_sweep_stops_after_its_present_pass_and_ends_at_the_second_interrupt() {
        let interrupts = Interrupts::default();
        interrupts.lock().stage = Stage::Computing;
        assert_eq!(interrupts.announce(Passes { done: 2, of: 30 }), Passes { done: 2, of: 30 });
        interrupts.finish_pass().unwrap();
        assert_eq!(interrupts.announce(Passes { done: 0, of: 10 }), Passes { done: 3, of: 40 });
        let Reaction::Continue(line) = receive(&interrupts) else { panic!("it ended") };
        assert!(line.contains("present pass") && line.contains("resumes"), "{line}");
        assert!(interrupts.finish_pass().is_err() && interrupts.begin_writing().is_err());
        assert_eq!(
            receive(&interrupts),
            end("interrupted; 4 of 40 passes are done; run the same command again to resume")
        );
    }

    #[test]
    fn the_traces_of_all_held_directories_are_removed() {
        let interrupts = Interrupts::default();
        let temporary = tempfile::tempdir().unwrap();
        let held = ["grid", "grid/cell"].map(|name| {
            let path = temporary.path().join(name);
            OutputDirectory::take(&path, &["a.txt"], "test", Waiting::Refuse).unwrap()
        });
        held.iter().for_each(|directory| interrupts.begin_computing(directory.traces()));
        // The deepest directory goes first, so that the one around it is empty.
        interrupts.lock().remove_traces();
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        interrupts.begin_next().unwrap();
        assert!(interrupts.lock().traces.is_empty());
    }

    #[test]
    fn results_that_are_being_written_are_completed() {
        let interrupts = Interrupts::default();
        interrupts.lock().stage = Stage::Computing;
        interrupts.begin_writing().unwrap();
        assert!(matches!(receive(&interrupts), Reaction::Continue(_)));
        interrupts.finish_writing();
        assert_eq!(interrupts.summary(), "interrupted; the results are complete");
    }

    #[test]
    fn interrupts_are_recognized_in_the_errors_of_checkpoints() {
        let stored = rewire_analysis::AnalysisError::Checkpoint(std::io::Error::other(Interrupted));
        assert!(is_interrupt(&stored.into()) && is_interrupt(&Interrupted.into()));
        let full = rewire_analysis::AnalysisError::Checkpoint(std::io::Error::other("the disk is full"));
        assert!(!is_interrupt(&full.into()));
    }
}
