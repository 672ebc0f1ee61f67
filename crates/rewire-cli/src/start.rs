//! Runs a process: parses its arguments, runs the command, returns the exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::output::{explain, say};
use crate::{panics, threads};

/// Exit code for refused input.
const REFUSED: u8 = 2;

/// Parses the process's arguments, calls `run`, and returns the exit code: 0 for success, 2 for
/// refused input, 3 for a fault in rewire. For 2 and 3, one line on standard error gives the
/// reason.
pub fn start<A: Parser>(run: impl FnOnce(A) -> anyhow::Result<()>) -> ExitCode {
    panics::guarded(|| {
        // The hook applies to the whole process. Therefore the program installs it, not a library.
        rewire_tensor::install_fault_hook();
        if let Err(error) = threads::check() {
            return refuse(&error);
        }
        match A::try_parse() {
            Ok(arguments) => match run(arguments) {
                Ok(()) => ExitCode::SUCCESS,
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
