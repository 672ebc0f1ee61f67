//! Runs a process: parses its arguments, runs the command, returns the exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::interrupt::{INTERRUPTED, Interrupts, is_interrupt};
use crate::output::{explain, say};
use crate::verify::compared::DoesNotHold;
use crate::{panics, threads};

/// Exit code for results that `rewire verify` does not confirm.
const DOES_NOT_HOLD: u8 = 1;

/// Exit code for refused input.
const REFUSED: u8 = 2;

/// Parses the process's arguments, calls `run`, and returns the exit code: 0 for success, 1 for
/// results that do not hold, 2 for refused input, 3 for a fault in rewire, 130 after Ctrl-C or
/// SIGTERM. For all but 0, one line on standard error gives the reason.
pub fn start<A: Parser>(run: impl FnOnce(A, &Interrupts) -> anyhow::Result<()>) -> ExitCode {
    panics::guarded(|| {
        // Both apply to the whole process. Therefore the program installs them, not a library.
        rewire_tensor::install_fault_hook();
        let interrupts = Interrupts::install(say);
        if let Err(error) = threads::check() {
            return refuse(&error);
        }
        match A::try_parse() {
            Ok(arguments) => match run(arguments, &interrupts) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if is_interrupt(&error) => {
                    say(&interrupts.summary());
                    ExitCode::from(INTERRUPTED)
                }
                Err(error) if error.is::<DoesNotHold>() => {
                    say(&error.to_string());
                    ExitCode::from(DOES_NOT_HOLD)
                }
                Err(error) => refuse(&error),
            },
            // `answer` is an error, or the text of --help or --version. Printing it is the only
            // step that can fail.
            Err(answer) => match answer.print() {
                Ok(()) => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(REFUSED)),
                Err(_) => ExitCode::from(REFUSED),
            },
        }
    })
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    say(&format!("error: {}", explain(error)));
    ExitCode::from(REFUSED)
}
