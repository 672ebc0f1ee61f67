//! As many patches side by side as the device has room for when their turn comes.
//!
//! A pass that asks for memory in vain cannot be taken back: burn's GPU backend goes on without it, and what it was tuning or fusing at the
//! time is left half done. So room is asked for before, and a pass that would not fit is halved. Where memory runs out all the same, that is
//! an error.

use std::ops::Range;
use std::sync::Mutex;

use burn::tensor::backend::Backend;
use rewire_model::Transformer;

use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::execution::{Execution, ReducedBatch};
use crate::run::memory::MemoryEstimate;

/// Does `work`, and does not believe its result where the device failed meanwhile.
pub(crate) fn catch_device_faults<B: Backend, T>(
    device: &B::Device,
    work: impl FnOnce() -> Result<T, AnalysisError>,
) -> Result<T, AnalysisError> {
    rewire_tensor::catch_device_faults::<B, _>(device, work).unwrap_or_else(|fault| Err(AnalysisError::Device(fault)))
}

/// Whether the device has done well since the analysis began: asked before something is kept for a later process.
pub(crate) fn ensure_healthy<B: Backend>(device: &B::Device) -> Result<(), AnalysisError> {
    catch_device_faults::<B, _>(device, || Ok(()))
}

/// The room for work on items that lie side by side.
pub(crate) struct MemoryLimiter<'a> {
    /// Bytes that can be taken, if the device can be asked.
    free: Box<dyn Fn() -> Option<u64> + Sync + 'a>,
    /// Bytes that a token takes, logits aside.
    a_token: u64,
    /// Bytes that the logits of a row take, where a metric works on them.
    a_row: u64,
    execution: &'a Execution<'a>,
    /// What the items are called.
    what: &'static str,
    /// The fewest that were told of, so that it is told once.
    smallest_reported: Mutex<Option<usize>>,
}

impl<'a> MemoryLimiter<'a> {
    /// Room on the model's device, for runs of a portion's prompts.
    pub(crate) fn new<B: Backend>(
        model: &'a Transformer<B>,
        batch: &PromptBatch,
        execution: &'a Execution<'a>,
        what: &'static str,
    ) -> Self {
        let device = model.device();
        let free = move || rewire_tensor::memory::<B>(&device).map(|memory| memory.free);
        let estimate = MemoryEstimate::new(model.config(), batch.pairs.width(), model.precision());
        let a_row = 16 * batch.columns(model.config()) as u64;
        let a_token = estimate.pass_a_token_without_logits;
        Self { free: Box::new(free), a_token, a_row, execution, what, smallest_reported: Mutex::new(None) }
    }

    /// What `work` gives for each of `items`, in their order; each is of so many rows and tokens in all. ReducedBatch, and halved again, until they fit into
    /// half of what is free.
    pub(crate) fn run(
        &self,
        items: Range<usize>,
        [rows, tokens]: [usize; 2],
        work: impl Fn(Range<usize>) -> Result<Vec<f32>, AnalysisError>,
    ) -> Result<Vec<f32>, AnalysisError> {
        let mut all = Vec::new();
        let mut from = items.start;
        let mut size = items.len();
        while from < items.end {
            size =
                self.fitting_count(size.min(items.end - from), self.a_token * tokens as u64 + self.a_row * rows as u64);
            all.extend(work(from..from + size)?);
            from += size;
        }
        Ok(all)
    }

    /// How many of `n` items of so many bytes there is room for.
    fn fitting_count(&self, n: usize, a_item: u64) -> usize {
        let Some(free) = (self.free)() else { return n };
        let mut size = n;
        while size > 1 && a_item * size as u64 > free / 2 {
            size = size.div_ceil(2);
        }
        let mut told = self.smallest_reported.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if size < n && told.is_none_or(|least| size < least) {
            *told = Some(size);
            (self.execution.on_reduced)(&ReducedBatch { what: self.what, from: n, to: size, free });
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_does_not_fit_is_halved_and_told() {
        let told = Mutex::new(Vec::new());
        let notice = |halved: &ReducedBatch| told.lock().unwrap().push((halved.from, halved.to));
        let execution = Execution { on_reduced: &notice, ..Execution::default() };
        // An item takes 1 * 10 and 10 * 3 bytes, of which half of what is free must be enough.
        let free = AtomicU64::new(8000);
        let passes = AtomicUsize::new(0);
        let limiter = MemoryLimiter {
            free: Box::new(|| Some(free.load(Ordering::Relaxed))),
            a_token: 3,
            a_row: 10,
            execution: &execution,
            what: "patches",
            smallest_reported: Mutex::new(None),
        };
        let run = |items: Range<usize>| {
            let work = |items: Range<usize>| {
                passes.fetch_add(1, Ordering::Relaxed);
                Ok(items.map(|i| i as f32).collect())
            };
            let found = limiter.run(items.clone(), [1, 10], work).unwrap();
            assert_eq!(found, items.map(|i| i as f32).collect::<Vec<_>>());
            passes.swap(0, Ordering::Relaxed)
        };
        assert_eq!(run(0..100), 1);
        assert!(told.lock().unwrap().is_empty());
        free.store(2400, Ordering::Relaxed);
        assert_eq!(run(0..100), 4);
        assert_eq!(run(7..37), 1);
        // Where not even one fits it is tried all the same: the estimate may be wrong.
        free.store(1, Ordering::Relaxed);
        assert_eq!(run(0..3), 3);
        assert_eq!(*told.lock().unwrap(), [(100, 25), (3, 1)]);
    }
}
