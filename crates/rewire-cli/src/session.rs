//! One run of a command: where it computes, in what numbers, with how much memory, since when.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::Context;
use burn::tensor::backend::Backend;
use bytesize::ByteSize;
use indicatif::ProgressBar;
use rewire_analysis::AnalysisError;
use rewire_analysis::run::{Execution, ReducedBatch};
use rewire_model::Transformer;
use rewire_studies::{Progress, Setup, StudyError};
use rewire_tensor::{DeviceError, set_matmul_precision};
use serde_json::{Value, json};

use crate::compute::{MemoryArguments, NumberArguments};
use crate::device::Device;
use crate::output::say;
use crate::progress::bar;

/// One run of a command. It is built from the arguments, once, and passed on.
pub(crate) struct Session {
    device: Device,
    numbers: NumberArguments,
    memory_budget: Option<u64>,
    started: Instant,
    seen: Arc<Seen>,
    on_fitted: Box<dyn Fn(u64) + Sync>,
    on_reduced: Box<dyn Fn(&ReducedBatch) + Sync>,
    on_progress: Box<dyn Fn(Progress<'_>) + Sync>,
}

/// What analyzes reported so far.
#[derive(Default)]
struct Seen {
    /// Bytes that the first sizes were fitted to.
    fitted: OnceLock<u64>,
    /// Every time that a pass was made smaller.
    reduced: Mutex<Vec<ReducedBatch>>,
    /// The progress bar of the step that runs.
    bar: Mutex<Option<ProgressBar>>,
}

impl Session {
    /// A run that computes in float32.
    ///
    /// # Errors
    /// If the program lacks the device or the machine has none.
    pub(crate) fn new(device: Device, memory: &MemoryArguments) -> anyhow::Result<Self> {
        Self::with_numbers(device, NumberArguments::default(), memory)
    }

    /// A run that computes in the numbers asked for.
    ///
    /// # Errors
    /// If the program lacks the device, the machine has none, or it does not compute in them.
    pub(crate) fn with_numbers(
        device: Device,
        numbers: NumberArguments,
        memory: &MemoryArguments,
    ) -> anyhow::Result<Self> {
        device.check()?;
        let device = device.resolve();
        numbers.check(device)?;
        set_matmul_precision(numbers.products());
        let seen = Arc::new(Seen::default());
        let [of_fitted, of_reduced, of_progress] = [&seen, &seen, &seen].map(Arc::clone);
        Ok(Self {
            device,
            numbers,
            memory_budget: memory.memory_budget,
            started: Instant::now(),
            seen,
            on_fitted: Box::new(move |bytes| {
                of_fitted.fitted.get_or_init(|| bytes);
            }),
            on_reduced: Box::new(move |reduced| {
                say(&reduced.to_string());
                locked(&of_reduced.reduced).push(reduced.clone());
            }),
            on_progress: Box::new(move |progress| show(&mut locked(&of_progress.bar), progress)),
        })
    }

    /// The device, never `auto`.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Seconds since the command began.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// How studies run: in the memory of this run, with a progress bar a step.
    pub(crate) fn setup(&self) -> Setup<'_> {
        Setup {
            memory_budget: self.memory_budget,
            on_fitted: &*self.on_fitted,
            on_reduced: &*self.on_reduced,
            on_progress: &*self.on_progress,
        }
    }

    /// The execution of an analysis of prompts of `pos` tokens: [`Setup::execution`].
    pub(crate) fn execution<B: Backend>(&self, model: &Transformer<B>, pos: usize) -> Execution<'_> {
        self.setup().execution(model, pos)
    }

    /// What was computed with, for `effects.json`.
    pub(crate) fn computed(&self) -> Value {
        let mut computed = self.numbers.describe();
        computed["halved"] = json!(self.reduced());
        computed
    }

    /// A line for each pass that was made smaller.
    pub(crate) fn reduced(&self) -> Vec<String> {
        locked(&self.seen.reduced).iter().map(ToString::to_string).collect()
    }

    /// Returns what `work` gives, unless the device failed meanwhile. If its memory ran out, the error
    /// says which budget to try.
    pub(crate) fn watched<B: Backend, T>(
        &self,
        device: &B::Device,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let result = rewire_tensor::catch_device_faults::<B, _>(device, work).unwrap_or_else(|fault| Err(fault.into()));
        match (&result, self.seen.fitted.get()) {
            (Err(error), Some(&fitted)) if matches!(fault(error), Some(DeviceError::OutOfMemory(_))) => {
                result.with_context(|| budget_to_try(fitted))
            }
            _ => result,
        }
    }
}

/// What to do after memory ran out in a run that was sized for so many bytes.
fn budget_to_try(fitted: u64) -> String {
    let half = match fitted / 2 {
        bytes if bytes >= 1 << 20 => format!("{}MiB", bytes >> 20),
        bytes => format!("{}B", bytes.max(1)),
    };
    format!("sized for {} of memory; run it again with --memory-budget {half}", ByteSize(fitted))
}

/// The device's fault, if that is what went wrong. Nothing more can be computed in this process then.
pub(crate) fn fault(error: &anyhow::Error) -> Option<&DeviceError> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(AnalysisError::Device(fault)) => Some(fault),
        _ => cause.downcast_ref::<StudyError>().and_then(StudyError::fault).or_else(|| cause.downcast_ref()),
    })
}

fn show(current: &mut Option<ProgressBar>, progress: Progress<'_>) {
    match (progress, current.as_ref()) {
        (Progress::Started(name), _) => *current = Some(bar(0, name)),
        (Progress::Done { done, of }, Some(bar)) => {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
        (Progress::Finished, Some(bar)) => {
            bar.finish_and_clear();
            *current = None;
        }
        (_, None) => {}
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;

    fn session() -> Session {
        Session::new(Device::Flex, &MemoryArguments::default()).unwrap()
    }

    #[test]
    fn memory_that_runs_out_names_the_budget_to_try() {
        let session = session();
        (session.setup().on_fitted)(1 << 30);
        let failed = session.watched::<Flex, ()>(&Default::default(), || {
            Err(AnalysisError::Device(DeviceError::OutOfMemory("can't allocate".to_owned())).into())
        });
        let error = crate::output::explain(&failed.unwrap_err());
        assert!(
            error.starts_with("sized for 1.0 GiB of memory; run it again with --memory-budget 512MiB: "),
            "{error}"
        );
        assert!(error.contains("can't allocate"), "{error}");
    }

    #[test]
    fn other_errors_are_left_as_they_are() {
        let session = session();
        (session.setup().on_fitted)(1 << 30);
        let failed = session.watched::<Flex, ()>(&Default::default(), || anyhow::bail!("another"));
        assert_eq!(crate::output::explain(&failed.unwrap_err()), "another");
    }

    #[test]
    fn two_sessions_share_nothing() {
        let [first, second] = [session(), session()];
        let reduced = ReducedBatch { what: "patches", from: 8, to: 4, free: 1 };
        (first.setup().on_reduced)(&reduced);
        assert_eq!(first.reduced(), [reduced.to_string()]);
        assert!(second.reduced().is_empty());
    }
}
