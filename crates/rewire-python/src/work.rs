//! Long work on a thread of its own, without Python's global lock. Ctrl-C stops it.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rewire_analysis::run::{Checkpoint, WorkId};

use crate::failure::Failure;

/// How often Python sees signals and progress.
const TICK: Duration = Duration::from_millis(50);
/// How long Ctrl-C waits for the present passes. The thread then ends without its caller.
const PATIENCE: Duration = Duration::from_millis(600);
/// The stack of the thread, as large as that of a program's main thread.
const STACK_BYTES: usize = 8 << 20;

/// The state of the work, which both threads see.
#[derive(Debug, Default)]
pub(crate) struct Control {
    is_stopped: AtomicBool,
    done: AtomicUsize,
    of: AtomicUsize,
}

impl Control {
    /// Begins a further step, whose progress starts at 0.
    pub(crate) fn begin(&self) {
        self.of.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Notes how far the work is.
    pub(crate) fn advance(&self, done: usize, of: usize) {
        self.of.store(of, Ordering::Relaxed);
        self.done.fetch_max(done, Ordering::Relaxed);
    }
}

/// Stores nothing, and ends an analysis after its present pass once the work is stopped.
impl Checkpoint for Control {
    fn load(&self, _: WorkId) -> Option<Vec<f32>> {
        None
    }

    fn store(&self, _: WorkId, _: &[f32]) -> io::Result<()> {
        match self.is_stopped.load(Ordering::Relaxed) {
            true => Err(io::Error::other("interrupted")),
            false => Ok(()),
        }
    }
}

/// Runs `work` on a thread, and calls `progress(done, of)` in Python while it runs.
///
/// # Errors
/// The failure of the work; `KeyboardInterrupt` after Ctrl-C; the exception of `progress`.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Control) -> Result<T, Failure> + Send + 'static,
) -> PyResult<T> {
    let control = Arc::new(Control::default());
    let of_thread = Arc::clone(&control);
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("rewire".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&of_thread)));
        // Nobody listens after Ctrl-C.
        let _ = sender.send(caught.unwrap_or_else(|panic| Err(fault(&*panic))));
    })?;
    // A channel can be read by one thread only, and `allow_threads` may move its closure.
    let receiver = std::sync::Mutex::new(receiver);
    let wait = |time: Duration| {
        py.allow_threads(|| {
            receiver.lock().map_or(Err(RecvTimeoutError::Disconnected), |receiver| receiver.recv_timeout(time))
        })
    };
    let mut shown = (0, 0);
    loop {
        match wait(TICK) {
            Ok(result) => {
                show(progress, &control, &mut shown)?;
                return Ok(result?);
            }
            Err(RecvTimeoutError::Disconnected) => return Err(fault(&"the thread ended early").into()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let seen = py.check_signals().and_then(|()| show(progress, &control, &mut shown));
        if let Err(interruption) = seen {
            control.is_stopped.store(true, Ordering::Relaxed);
            let asked = Instant::now();
            while asked.elapsed() < PATIENCE && matches!(wait(TICK), Err(RecvTimeoutError::Timeout)) {}
            return Err(interruption);
        }
    }
}

/// Calls `progress` if there is something new.
fn show(progress: Option<&Bound<'_, PyAny>>, control: &Control, shown: &mut (usize, usize)) -> PyResult<()> {
    // A step may begin between the two loads.
    let (done, of) = (control.done.load(Ordering::Relaxed), control.of.load(Ordering::Relaxed));
    let now = (done.min(of), of);
    if let Some(progress) = progress.filter(|_| now != *shown && now.1 > 0) {
        *shown = now;
        progress.call1(now)?;
    }
    Ok(())
}

fn fault(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Failure::Internal(format!("a fault in rewire: {words}"))
}
