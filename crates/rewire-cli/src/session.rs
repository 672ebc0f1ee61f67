//! One run of a command: its device, precision, memory budget and start time.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::Context;
use burn::tensor::backend::Backend;
use bytesize::ByteSize;
use rewire_analysis::AnalysisError;
use rewire_analysis::run::{Execution, ReducedBatch};
use rewire_model::Transformer;
use rewire_studies::{Progress, Setup, StudyError};
use rewire_tensor::{DeviceError, set_matmul_precision};
use serde_json::{Value, json};

use crate::compute::{MemoryArguments, NumberArguments};
use crate::device::Device;
use crate::interrupt::Interrupts;
use crate::output::{command, say};
use crate::progress::StepProgress;

/// One run of a command. Each command builds it once from its arguments.
pub(crate) struct Session {
    device: Device,
    numbers: NumberArguments,
    memory_budget: Option<u64>,
    command: Vec<String>,
    started: Instant,
    /// The time of the clock at the start.
    began: SystemTime,
    interrupts: Interrupts,
    seen: Arc<Seen>,
    on_fitted: Box<dyn Fn(u64) + Sync>,
    on_reduced: Box<dyn Fn(&ReducedBatch) + Sync>,
    on_progress: Box<dyn Fn(Progress<'_>) + Sync>,
}

/// The reports of the analyses of this run.
#[derive(Default)]
struct Seen {
    /// Bytes of memory that the first batch sizes were fitted to.
    fitted: OnceLock<u64>,
    /// All reductions of a batch, in order.
    reduced: Mutex<Vec<ReducedBatch>>,
    /// The progress of the current step.
    progress: Mutex<Option<StepProgress>>,
}

impl Session {
    /// Returns a run that computes in float32.
    ///
    /// # Errors
    /// If the program was built without the device, or the machine has no such device.
    pub(crate) fn new(device: Device, memory: &MemoryArguments, interrupts: &Interrupts) -> anyhow::Result<Self> {
        Self::with_numbers(device, NumberArguments::default(), memory, interrupts)
    }

    /// Returns a run that computes in the precision of `numbers`.
    ///
    /// # Errors
    /// If the program was built without the device, the machine has no such device, or the device
    /// does not support the precision.
    pub(crate) fn with_numbers(
        device: Device,
        numbers: NumberArguments,
        memory: &MemoryArguments,
        interrupts: &Interrupts,
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
            command: command(),
            started: Instant::now(),
            began: SystemTime::now(),
            interrupts: interrupts.clone(),
            seen,
            on_fitted: Box::new(move |bytes| {
                of_fitted.fitted.get_or_init(|| bytes);
            }),
            on_reduced: Box::new(move |reduced| {
                say(&reduced.to_string());
                locked(&of_reduced.reduced).push(reduced.clone());
            }),
            on_progress: Box::new(move |progress| show(&mut locked(&of_progress.progress), progress)),
        })
    }

    /// Sets the command line that the results describe, if it is not this process's: that of the
    /// merged shards.
    pub(crate) fn set_command(&mut self, command: Vec<String>) {
        self.command = command;
    }

    /// Returns the command line that the results describe, without the program.
    pub(crate) fn command(&self) -> &[String] {
        &self.command
    }

    /// Returns the device, never `auto`.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Returns how far the command is, for Ctrl-C.
    pub(crate) fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// Returns the seconds since the command started.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Returns the time at which the command started, in UTC, such as `2026-11-28T02:00:00Z`.
    pub(crate) fn started(&self) -> String {
        humantime::format_rfc3339_seconds(self.began).to_string()
    }

    /// Returns the settings of studies: the memory budget of this run, and one progress bar per
    /// step.
    pub(crate) fn setup(&self) -> Setup<'_> {
        Setup {
            memory_budget: self.memory_budget,
            on_fitted: &*self.on_fitted,
            on_reduced: &*self.on_reduced,
            on_progress: &*self.on_progress,
            checkpoint: &(),
        }
    }

    /// Returns the execution of an analysis on prompts of `pos` tokens: [`Setup::execution`].
    pub(crate) fn execution<B: Backend>(&self, model: &Transformer<B>, pos: usize) -> Execution<'_> {
        self.setup().execution(model, pos)
    }

    /// Returns the precision, for `effects.json`.
    pub(crate) fn precision(&self) -> Value {
        self.numbers.describe()
    }

    /// Returns the precision and the reduced batches, for `effects.json`.
    pub(crate) fn computed(&self) -> Value {
        let mut computed = self.precision();
        computed["halved"] = json!(self.reduced());
        computed
    }

    /// Returns one line for each reduction of a batch.
    pub(crate) fn reduced(&self) -> Vec<String> {
        locked(&self.seen.reduced).iter().map(ToString::to_string).collect()
    }

    /// Runs `work` and returns its result, or an error if the device reported a fault in the
    /// meantime. If the device ran out of memory, the error names a budget to try.
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

/// Returns the advice after a run that was fitted to this many bytes ran out of memory.
fn budget_to_try(fitted: u64) -> String {
    let half = match fitted / 2 {
        bytes if bytes >= 1 << 20 => format!("{}MiB", bytes >> 20),
        bytes => format!("{}B", bytes.max(1)),
    };
    format!("sized for {} of memory; run it again with --memory-budget {half}", ByteSize(fitted))
}

/// Returns the device fault that caused an error, if there is one. After a device fault this
/// process cannot compute any more.
pub(crate) fn fault(error: &anyhow::Error) -> Option<&DeviceError> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(AnalysisError::Device(fault)) => Some(fault),
        _ => cause.downcast_ref::<StudyError>().and_then(StudyError::fault).or_else(|| cause.downcast_ref()),
    })
}

/// Updates the progress of the current step.
fn show(current: &mut Option<StepProgress>, progress: Progress<'_>) {
    match (progress, current.as_mut()) {
        (Progress::Started(name), _) => *current = Some(StepProgress::new(name)),
        (Progress::Done { done, of }, Some(step)) => step.update(done, of, ""),
        (Progress::Finished, Some(step)) => {
            step.finish();
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
        Session::new(Device::Flex, &MemoryArguments::default(), &Interrupts::default()).unwrap()
    }

    #[test]
    fn out_of_memory_errors_name_a_smaller_budget() {
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
    fn other_errors_are_not_changed() {
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
