//! The program `rewire`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

// Analyzes allocate and free large tensors all the time; page faults of the system allocator cost a fifth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rewire_cli::start(|arguments: rewire_cli::Arguments| arguments.command.run())
}
