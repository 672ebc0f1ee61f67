//! The memory budget of a study, and the functions that receive its progress.

use std::fmt;

use burn::tensor::backend::Backend;
use rewire_analysis::AnalysisError;
use rewire_analysis::run::{Checkpoint, Execution, MemoryEstimate, NamedCheckpoint, ReducedBatch};
use rewire_model::Transformer;

use crate::error::StudyError;

/// An event that a study reports while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The step with this name begins.
    Started(&'a str),
    /// The step has advanced.
    Done {
        /// Patches done, counted in prompts.
        done: usize,
        /// All patches of the step, counted in prompts.
        of: usize,
    },
    /// The step ends.
    Finished,
}

/// Sets how a study runs. The default uses all free memory and reports nothing.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Largest number of bytes for activations and passes. `None` uses all free memory on a GPU. On
    /// a CPU, `None` uses batch sizes that are the same on every machine.
    pub memory_budget: Option<u64>,
    /// Called with the number of bytes whenever batch sizes are fitted to a budget.
    pub on_fitted: &'a (dyn Fn(u64) + Sync),
    /// Called when a batch is reduced because too little memory is free.
    pub on_reduced: &'a (dyn Fn(&ReducedBatch) + Sync),
    /// Called when a step begins, advances or ends.
    pub on_progress: &'a (dyn Fn(Progress<'_>) + Sync),
    /// Stores the finished passes, and chooses those that this process computes. A study whose
    /// passes are shared by several processes ends with [`AnalysisError::PassesLeft`] in each of
    /// them.
    pub checkpoint: &'a dyn Checkpoint,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { memory_budget: None, on_fitted: &|_| {}, on_reduced: &|_| {}, on_progress: &|_| {}, checkpoint: &() }
    }
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("memory_budget", &self.memory_budget).finish_non_exhaustive()
    }
}

impl<'a> Setup<'a> {
    /// Returns the execution for an analysis of prompts with `pos` tokens. Its batches are as large
    /// as the memory allows.
    #[must_use]
    pub fn execution<B: Backend>(&self, model: &Transformer<B>, pos: usize) -> Execution<'a> {
        let free = rewire_tensor::memory::<B>(&model.device()).map(|memory| memory.free);
        let budget = [self.memory_budget, free].into_iter().flatten().min();
        if let Some(budget) = budget {
            let enough = MemoryEstimate::new(model.config(), pos, model.precision()).enough();
            (self.on_fitted)(budget.min(enough));
        }
        Execution { on_reduced: self.on_reduced, ..Execution::default() }.fitted(model, pos, budget)
    }

    /// Runs a step and returns the result of `work`. `work` reports its progress to the function
    /// that it receives, as (done, of).
    pub fn step<T>(&self, name: &str, work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> T) -> T {
        (self.on_progress)(Progress::Started(name));
        let result = work(&|done, of| (self.on_progress)(Progress::Done { done, of }));
        (self.on_progress)(Progress::Finished);
        result
    }

    /// Runs an analysis as a step, whose passes several processes can share. No other shared step
    /// of the study has its name. Returns `None` if passes of other processes are left. The study
    /// then goes on with the steps that do not need the result.
    pub(crate) fn share<T, E: Into<StudyError>>(
        &self,
        name: &str,
        execution: Execution<'_>,
        analysis: impl FnOnce(&Execution<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, StudyError> {
        let checkpoint = NamedCheckpoint::new(self.checkpoint, name);
        let found = self.step(name, |progress| analysis(&Execution { progress, checkpoint: &checkpoint, ..execution }));
        attempt(found)
    }
}

/// Returns the result of a part of a study, or `None` if passes of other processes are left.
pub(crate) fn attempt<T, E: Into<StudyError>>(result: Result<T, E>) -> Result<Option<T>, StudyError> {
    match result.map_err(Into::into) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_of_passes_left() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the result of a part of a study.
///
/// # Errors
/// [`AnalysisError::PassesLeft`] if there is none yet.
pub(crate) fn complete<T>(found: Option<T>) -> Result<T, AnalysisError> {
    found.ok_or(AnalysisError::PassesLeft)
}
