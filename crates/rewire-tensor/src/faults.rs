//! Detects failures of a device.
//!
//! burn's GPU backends compute on threads of their own. If one of these threads fails (out of
//! memory, for example), it skips the step and continues with the next one. It raises no error, and
//! the result is arbitrary memory. Therefore a panic hook records the panics of these threads, and
//! [`catch_device_faults`] discards every result that was computed in the meantime.
//!
//! The hook belongs to the whole process. The program installs it ([`install_fault_hook`]), never a
//! library. Without it, [`catch_device_faults`] refuses to compute on such a device.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::tensor::backend::Backend;

/// A failure of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device has too little memory.
    #[error("the device has too little memory ({0})")]
    OutOfMemory(String),
    /// The program has not called [`install_fault_hook`], and a failure would stay unnoticed.
    #[error(
        "failures of this device would go unnoticed; call rewire_tensor::install_fault_hook() once, at the start of the program"
    )]
    Unseen,
    /// Another failure, in the backend's words.
    #[error("the device failed: {0}")]
    Other(String),
}

/// Panic messages of the devices' threads, oldest first. Messages stay here, because watches on
/// several threads may need the same one.
static FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether [`install_fault_hook`] was called.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// The number of watches that are running.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The number of faults when this thread's outermost watch began.
    static WATCHED_SINCE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Returns whether the backend computes on the calling threads, as the CPU backends do. A failure
/// then panics on the calling thread.
#[must_use]
pub fn is_synchronous<B: Backend>(device: &B::Device) -> bool {
    ["flex", "ndarray"].iter().any(|name| B::name(device).contains(name))
}

/// Runs `work` and returns its result, or an error if the device failed in the meantime.
///
/// Watches may be nested: an inner watch reports every failure since the outermost watch of its
/// thread began, and the outermost watch reports it again at its end. On a CPU backend, `work`
/// simply runs, because a failure panics on the calling thread.
///
/// One kind of failure stays unnoticed: a kernel that the device refuses right before the backend
/// tries kernels for another step.
///
/// # Errors
/// [`DeviceError`] if the device failed. [`DeviceError::Unseen`], without running `work`, if the
/// device computes on threads of its own and [`install_fault_hook`] was not called.
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
    // Steps that were queued and not read may still fail.
    let synced = catch_unwind(AssertUnwindSafe(|| B::sync(device)));
    WATCHES.fetch_sub(1, Ordering::Relaxed);
    WATCHED_SINCE.set(outer);
    if let Ok(Err(error)) = synced {
        // The backend reports it only once.
        faults().push(error.to_string());
    }
    let mut messages = faults().get(since..).unwrap_or_default().to_vec();
    let panic = match result {
        Ok(result) if messages.is_empty() => return Ok(result),
        Ok(_) => None,
        Err(panic) => Some(panic),
    };
    // If code reads a result after a device error, this thread panics with burn's message.
    let own = panic.as_ref().and_then(|panic| message(panic.as_ref()));
    messages.extend(own.filter(|own| is_out_of_memory(own) || own.starts_with("Error while reading data")));
    // A failed allocation is followed by failures of steps that needed that memory.
    match (messages.iter().find(|message| is_out_of_memory(message)), messages.first(), panic) {
        (Some(message), ..) => Err(DeviceError::OutOfMemory(first_line(message))),
        (None, Some(message), _) => Err(DeviceError::Other(first_line(message))),
        (None, None, Some(panic)) => resume_unwind(panic),
        (None, None, None) => Err(DeviceError::Other("it gave no reason".into())),
    }
}

fn faults() -> std::sync::MutexGuard<'static, Vec<String>> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the panic hook that [`catch_device_faults`] needs on a device that computes on threads
/// of its own.
///
/// Call it once at the start of a program, after any panic hook of your own. It records the panics
/// of the device's threads, and passes all other panics to the earlier hook. A panic that a watch
/// will report is not printed. A hook that is set later must call this one, or failures go
/// unnoticed again. A program that computes only on the CPU does not need it.
pub fn install_fault_hook() {
    let others = take_hook();
    set_hook(Box::new(move |info| {
        let is_reported = match is_device_thread() {
            true => {
                faults().push(message(info.payload()).unwrap_or_else(|| "a panic without a message".into()));
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

/// Returns whether this thread serves a device: the backend names such threads `DSU-..` and
/// `DSD-..`.
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

/// Returns the first line of a message, without the backend's wrapping.
fn first_line(message: &str) -> String {
    let line =
        message.lines().find(|line| is_out_of_memory(line)).or_else(|| message.lines().next()).unwrap_or_default();
    line.rsplit("`Err` value: ").next().unwrap_or(line).trim().to_owned()
}
