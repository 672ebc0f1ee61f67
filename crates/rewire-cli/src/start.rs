//! From the process's arguments to its exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::output::{explain, say};
use crate::{panics, threads};

/// Exit code for input that was refused.
const REFUSED: u8 = 2;

/// Parses the process's arguments, runs them, and returns the exit code: 0, 2 for refused input (one
/// line on standard error says why), 3 for a fault in rewire.
pub fn start<A: Parser>(run: impl FnOnce(A) -> anyhow::Result<()>) -> ExitCode {
    panics::guarded(|| {
        // A program installs it, not a library: it is the whole process's.
        rewire_tensor::install_fault_hook();
        if let Err(error) = threads::check() {
            return refuse(&error);
        }
        match A::try_parse() {
            Ok(arguments) => match run(arguments) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => refuse(&error),
            },
            // Help and version are answers; they fail only if they cannot be printed.
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
