//! Reports a panic as one line and exit code 3.
//!
//! A panic is a fault in rewire, for any input. The command prints one line instead of a trace.
//! With `RUST_BACKTRACE=1` it prints the trace too.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use crate::output::say;

/// Exit code for a fault in rewire itself.
const FAULT: u8 = 3;

/// Message and location of the latest panic on any thread. The hook does not print them, because a
/// library may catch its panic and return an ordinary error.
static LATEST: Mutex<Option<String>> = Mutex::new(None);

/// Runs a command. A panic becomes one line on standard error and exit code 3.
pub(crate) fn guarded(command: impl FnOnce() -> ExitCode) -> ExitCode {
    let trace = take_hook();
    let is_wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    set_hook(Box::new(move |info| {
        if is_wanted {
            trace(info);
        }
        *LATEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(describe(info));
    }));
    let code = catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner).take();
        let what = latest.unwrap_or_else(|| "no message".to_owned());
        say(&format!(
            "error: rewire failed ({what}). This is a fault in rewire; please report this line and the command. \
             Earlier results are unchanged."
        ));
        ExitCode::from(FAULT)
    });
    // Restores the default hook for code that runs after the command.
    drop(take_hook());
    code
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no message");
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    match info.location() {
        Some(place) => format!("{message}, at {}:{}", place.file(), place.line()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::{FAULT, guarded};

    #[test]
    fn a_panic_is_one_line_and_exit_code_3() {
        let code = |code: ExitCode| format!("{code:?}");
        assert_eq!(code(guarded(|| panic!("a test\npanics"))), code(ExitCode::from(FAULT)));
        assert_eq!(code(guarded(|| ExitCode::from(2))), code(ExitCode::from(2)));
    }
}
