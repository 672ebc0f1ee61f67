//! Noticing that a device failed.
//!
//! burn's GPU backends compute on threads of their own. If one of them fails (out of memory, for
//! example), it skips the step and goes on with the next. No error is raised, and the result is
//! whatever lay in the memory. A panic hook therefore keeps the panics of these threads, and
//! [`catch_device_faults`] returns nothing that was computed meanwhile.
//!
//! The hook belongs to the whole process, so the program installs it ([`install_fault_hook`]), never
//! a library. Without it [`catch_device_faults`] refuses to compute on such a device.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::tensor::backend::Backend;

/// What went wrong on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// It has no room for what was asked.
    #[error("the device has not enough memory ({0})")]
    OutOfMemory(String),
    /// Nobody would notice a failure: the program has not called [`install_fault_hook`].
    #[error(
        "failures of this device would go unseen: call rewire_tensor::install_fault_hook() once, at the start of the program"
    )]
    Unseen,
    /// Something else, in the backend's words.
    #[error("the device failed: {0}")]
    Other(String),
}

/// What the devices' threads panicked with, oldest first. Nothing is taken out, so that watches on several threads all see it.
static FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether [`install_fault_hook`] was called.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// How many outermost watches there are.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How many faults there were when this thread's outermost watch over a device that computes behind its back began.
    static WATCHED_SINCE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Whether the backend computes on the calling threads, as those of the CPU do: what fails there panics there.
#[must_use]
pub fn is_synchronous<B: Backend>(device: &B::Device) -> bool {
    ["flex", "ndarray"].iter().any(|name| B::name(device).contains(name))
}

/// Runs `work` and returns its result, or an error if the device failed in the meantime.
///
/// Watches may be nested: an inner watch reports every failure since the outermost watch of its
/// thread began, and the outermost one reports it again at its end. On a CPU backend `work` simply
/// runs, since a failure there is a panic of the calling thread.
///
/// One kind of failure stays unseen: a kernel that is refused right before the backend tries
/// kernels for another step.
///
/// # Errors
/// [`DeviceError`]; it is [`DeviceError::Unseen`], and `work` is not run, if the device computes on threads of
/// its own and [`install_fault_hook`] was not called.
pub fn catch_device_faults<B: Backend, T>(device: &B::Device, work: impl FnOnce() -> T) -> Result<T, DeviceError> {
    if is_synchronous::<B>(device) {
        return Ok(work());
    }
    if !INSTALLED.load(Ordering::Acquire) {
        return Err(DeviceError::Unseen);
    }
    let outer = WATCHED_SINCE.get();
    let since = outer.unwrap_or_else(|| faults().len());
    WATCHED_SINCE.set(Some(since));
    WATCHES.fetch_add(1, Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(work));
    // What was asked for and not read may fail yet.
    let synced = catch_unwind(AssertUnwindSafe(|| B::sync(device)));
    WATCHES.fetch_sub(1, Ordering::Relaxed);
    WATCHED_SINCE.set(outer);
    if let Ok(Err(error)) = synced {
        // The backend tells of it once.
        faults().push(error.to_string());
    }
    let mut messages = faults().get(since..).unwrap_or_default().to_vec();
    let panic = match result {
        Ok(result) if messages.is_empty() => return Ok(result),
        Ok(_) => None,
        Err(panic) => Some(panic),
    };
    // A device's error that was read like a number is a panic of this thread, in burn's words.
    let own = panic.as_ref().and_then(|panic| message(panic.as_ref()));
    messages.extend(own.filter(|own| is_out_of_memory(own) || own.starts_with("Error while reading data")));
    // One who asks for memory in vain is followed by others who miss what was to lie there.
    match (messages.iter().find(|message| is_out_of_memory(message)), messages.first(), panic) {
        (Some(message), ..) => Err(DeviceError::OutOfMemory(first_line(message))),
        (None, Some(message), _) => Err(DeviceError::Other(first_line(message))),
        (None, None, Some(panic)) => resume_unwind(panic),
        (None, None, None) => Err(DeviceError::Other("it failed without words".into())),
    }
}

fn faults() -> std::sync::MutexGuard<'static, Vec<String>> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the panic hook that [`catch_device_faults`] needs on a device that computes on threads of its own.
///
/// Call it once at the start of a program, after any panic hook of your own: it keeps the panics of
/// the device's threads and hands all others to the hook that was there. A panic that a watch will
/// report is not printed. A hook that is set later must call this one, or failures go unseen again.
/// A program that computes on the CPU alone does not need it.
pub fn install_fault_hook() {
    let others = take_hook();
    set_hook(Box::new(move |info| {
        let is_reported = match is_device_thread() {
            true => {
                faults().push(message(info.payload()).unwrap_or_else(|| "a panic without words".into()));
                WATCHES.load(Ordering::Relaxed) > 0
            }
            false => WATCHED_SINCE.get().is_some_and(|since| faults().len() > since),
        };
        if !is_reported {
            others(info);
        }
    }));
    INSTALLED.store(true, Ordering::Release);
}

/// The backend names the threads that serve a device `DSU-..` and `DSD-..`.
fn is_device_thread() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("DSU") || name.starts_with("DSD"))
}

fn is_out_of_memory(message: &str) -> bool {
    ["can't allocate", "out of memory", "OutOfMemory", "OUT_OF_MEMORY", "out-of-memory"]
        .iter()
        .any(|m| message.contains(m))
}

fn message(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
}

/// The first line with the backend's wrapping taken off.
fn first_line(message: &str) -> String {
    let line =
        message.lines().find(|line| is_out_of_memory(line)).or_else(|| message.lines().next()).unwrap_or_default();
    line.rsplit("`Err` value: ").next().unwrap_or(line).trim().to_owned()
}
