//! Noticing that a device failed.
//!
//! burn's GPU backends compute on threads of their own. Where one of them fails, for want of memory say, it skips the step and goes
//! on with the next, and what is read in the end is whatever lay in the memory: no error is raised. So what such threads panic with
//! is kept, and nothing that was computed meanwhile is believed.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::{Mutex, Once, PoisonError};

use burn::tensor::backend::Backend;

/// What went wrong on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It has no room for what was asked.
    #[error("the device has not enough memory ({0})")]
    OutOfMemory(String),
    /// Something else, in the backend's words.
    #[error("the device failed: {0}")]
    Other(String),
}

/// What the devices' threads panicked with, oldest first.
static FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread is within [`watched`], on a device that computes behind its back.
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the backend computes on the calling threads, as those of the CPU do: what fails there panics there.
#[must_use]
pub fn computes_here<B: Backend>(device: &B::Device) -> bool {
    ["flex", "ndarray"].iter().any(|name| B::name(device).contains(name))
}

/// Does `work`, and gives its result unless the device failed meanwhile. Watches may lie within each other; what an inner one has
/// reported is not reported by the outer one.
///
/// # Errors
/// [`Fault`].
pub fn watched<B: Backend, T>(device: &B::Device, work: impl FnOnce() -> T) -> Result<T, Fault> {
    if computes_here::<B>(device) {
        return Ok(work());
    }
    install_hook();
    let before = faults().len();
    let outer = WATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let result = work();
        // What was asked for and not read may fail yet.
        let synced = B::sync(device);
        (result, synced)
    }));
    WATCHING.set(outer);
    let mut messages = faults().split_off(before);
    let result = match result {
        Ok((result, Ok(()))) => Ok(result),
        Ok((_, Err(error))) => {
            messages.push(error.to_string());
            Err(None)
        }
        Err(panic) => {
            messages.extend(message(panic.as_ref()));
            Err(Some(panic))
        }
    };
    // One who asks for memory in vain is followed by others who miss what was to lie there.
    match (messages.iter().find(|m| is_out_of_memory(m)), result) {
        (Some(message), _) => Err(Fault::OutOfMemory(first_line(message))),
        (None, Ok(result)) if messages.is_empty() => Ok(result),
        // A panic of our own, and no device's.
        (None, Err(Some(panic))) if messages.len() <= 1 => resume_unwind(panic),
        (None, _) => Err(Fault::Other(messages.first().map_or_else(String::new, |message| first_line(message)))),
    }
}

fn faults() -> std::sync::MutexGuard<'static, Vec<String>> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what the devices' threads panic with, and prints none of it: who watches reports it.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if is_device_thread() {
                faults().push(message(info.payload()).unwrap_or_else(|| "a panic without words".into()));
            } else if !(WATCHING.get() && !faults().is_empty()) {
                others(info);
            }
        }));
    });
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
