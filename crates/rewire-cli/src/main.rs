//! The binary `rewire`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

// Analyses allocate and free large tensors all the time. With the system allocator, page faults
// cost a fifth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rewire_cli::start(|arguments: rewire_cli::Arguments, interrupts| arguments.command.run(interrupts))
}
