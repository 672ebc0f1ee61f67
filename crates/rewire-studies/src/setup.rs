//! How much memory a study may use, and which functions receive its progress.

use std::fmt;

use burn::tensor::backend::Backend;
use rewire_analysis::run::{Execution, MemoryEstimate, ReducedBatch};
use rewire_model::Transformer;

/// What a study reports while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A step of this name begins.
    Started(&'a str),
    /// So much of the step is done.
    Done {
        /// Patches that are done, counted in prompts.
        done: usize,
        /// All patches of the step.
        of: usize,
    },
    /// The step ends.
    Finished,
}

/// How a study runs. The default uses the memory that is free and reports to nobody.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Most bytes for activations and passes. `None` takes what is free on a GPU, and on the CPU
    /// sizes that are the same on every machine.
    pub memory_budget: Option<u64>,
    /// Called with the bytes that sizes are fitted to, whenever they are fitted to a number.
    pub on_fitted: &'a (dyn Fn(u64) + Sync),
    /// Called when a pass must be made smaller because too little memory is free.
    pub on_reduced: &'a (dyn Fn(&ReducedBatch) + Sync),
    /// Called when a step begins, advances or ends.
    pub on_progress: &'a (dyn Fn(Progress<'_>) + Sync),
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { memory_budget: None, on_fitted: &|_| {}, on_reduced: &|_| {}, on_progress: &|_| {} }
    }
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("memory_budget", &self.memory_budget).finish_non_exhaustive()
    }
}

impl<'a> Setup<'a> {
    /// Returns the execution that every analysis of prompts of `pos` tokens begins with: as much at
    /// once as there is memory for.
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

    /// Runs a step: `work` is given the function that it reports its progress to.
    pub fn step<T>(&self, name: &str, work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> T) -> T {
        (self.on_progress)(Progress::Started(name));
        let result = work(&|done, of| (self.on_progress)(Progress::Done { done, of }));
        (self.on_progress)(Progress::Finished);
        result
    }
}
