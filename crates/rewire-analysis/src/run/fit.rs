//! Splits passes to fit into the free memory of the device.
//!
//! A failed allocation cannot be undone: burn's GPU backend continues without the memory, and
//! leaves a kernel that it was tuning or fusing half done. The limiter therefore asks for the free
//! memory before each pass and halves a pass that would not fit. If memory runs out nevertheless,
//! the analysis returns an error.

use std::ops::Range;
use std::sync::Mutex;

use burn::tensor::backend::Backend;
use rewire_model::Transformer;

use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::execution::{Execution, ReducedBatch};
use crate::run::memory::MemoryEstimate;

/// Runs `work` and returns its result, or an error if the device reported a fault in the meantime.
pub(crate) fn catch_device_faults<B: Backend, T>(
    device: &B::Device,
    work: impl FnOnce() -> Result<T, AnalysisError>,
) -> Result<T, AnalysisError> {
    rewire_tensor::catch_device_faults::<B, _>(device, work).unwrap_or_else(|fault| Err(AnalysisError::Device(fault)))
}

/// Returns an error if the device reported a fault since the analysis began. Call it before numbers
/// are stored for a later process.
pub(crate) fn ensure_healthy<B: Backend>(device: &B::Device) -> Result<(), AnalysisError> {
    catch_device_faults::<B, _>(device, || Ok(()))
}

/// Limits how many items run in one batch by the free memory of the device.
pub(crate) struct MemoryLimiter<'a> {
    /// Returns the free bytes; `None` if the backend does not report them.
    free: Box<dyn Fn() -> Option<u64> + Sync + 'a>,
    /// Bytes per token, without logits.
    a_token: u64,
    /// Bytes per row for the logits that the metric reads.
    a_row: u64,
    execution: &'a Execution<'a>,
    /// Name of the items in messages.
    what: &'static str,
    /// The smallest batch reported so far; only smaller ones are reported again.
    smallest_reported: Mutex<Option<usize>>,
}

impl<'a> MemoryLimiter<'a> {
    /// Returns a limiter for the model's device and for runs of the prompts in a batch.
    pub(crate) fn new<B: Backend>(
        model: &'a Transformer<B>,
        batch: &PromptBatch,
        execution: &'a Execution<'a>,
        what: &'static str,
    ) -> Self {
        let device = model.device();
        let free = move || rewire_tensor::memory::<B>(&device).map(|memory| memory.free);
        let estimate = MemoryEstimate::new(model.config(), batch.pairs.width(), model.precision());
        let a_row = 16 * (batch.reads_per_prompt() * batch.columns(model.config())) as u64;
        let a_token = estimate.pass_a_token_without_logits;
        Self { free: Box::new(free), a_token, a_row, execution, what, smallest_reported: Mutex::new(None) }
    }

    /// Runs `work` on `items` and returns its results in the order of the items. Each item has the
    /// given number of rows and tokens. A batch of items is halved until it fits into half of the
    /// free memory.
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

    /// Returns how many of `n` items, of `a_item` bytes each, fit into half of the free memory; at
    /// least 1.
    fn fitting_count(&self, n: usize, a_item: u64) -> usize {
        let Some(free) = (self.free)() else { return n };
        let mut size = n;
        while size > 1 && a_item * size as u64 > free / 2 {
            size = size.div_ceil(2);
        }
        let mut smallest = self.smallest_reported.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if size < n && smallest.is_none_or(|least| size < least) {
            *smallest = Some(size);
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
    fn batches_that_do_not_fit_are_halved_and_reported() {
        let reported = Mutex::new(Vec::new());
        let notice = |halved: &ReducedBatch| reported.lock().unwrap().push((halved.from, halved.to));
        let execution = Execution { on_reduced: &notice, ..Execution::default() };
        // An item takes 1 * 10 + 10 * 3 bytes, and a batch must fit into half of the free memory.
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
        assert!(reported.lock().unwrap().is_empty());
        free.store(2400, Ordering::Relaxed);
        assert_eq!(run(0..100), 4);
        assert_eq!(run(7..37), 1);
        // A single item runs even if it does not fit, because the estimate may be wrong.
        free.store(1, Ordering::Relaxed);
        assert_eq!(run(0..3), 3);
        assert_eq!(*reported.lock().unwrap(), [(100, 25), (3, 1)]);
    }
}
