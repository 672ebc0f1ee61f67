//! Rewire's commands; run them as `cargo xtask <command>`.
#![forbid(unsafe_code)]

mod agreement;
mod arguments;
mod bench;
mod certainty;
mod compute;
mod device;
mod given;
mod model;
mod names;
mod output;
mod panics;
mod paths;
mod progress;
mod reproduce_facts;
mod reproduce_ig;
mod reproduce_ioi;
mod reproduce_pythia;
mod screening;
mod soak;
mod sweep;
mod threads;
mod train_toy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::{explain, say};

// Analyses allocate and free large tensors all the time; page faults of the system allocator cost a fifth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Find which parts of a transformer language model cause a behaviour.
#[derive(Parser)]
#[command(name = "cargo xtask", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reproduce the attribution-patching demo: which heads do indirect object identification.
    ReproduceIoi(reproduce_ioi::Arguments),
    /// Reproduce the comparison of integrated gradients with activation patching, and its ablation study.
    ReproduceIg(reproduce_ig::Arguments),
    /// Reproduce the Pythia notebook: the circuit for indirect object identification, found step by step.
    ReproducePythia(reproduce_pythia::Arguments),
    /// Reproduce the factual-recall example: where a landmark's city is read from. Its own model is gpt2-xl, which needs 9 GB.
    ReproduceFacts(reproduce_facts::Arguments),
    /// Patch your own prompt pairs: any method, any kind of node.
    Sweep(sweep::Arguments),
    /// Time each sweep on models of known shapes, and say how far it is from the least it could take.
    Bench(bench::Arguments),
    /// Abuse these commands with kills, races, damage and full disks, and count what holds.
    Soak(soak::Arguments),
    /// Train an embedded toy model from nothing and write it in Hugging Face layout.
    TrainToy(train_toy::Arguments),
}

/// Exit code for input that was refused.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    panics::guarded(run)
}

fn run() -> ExitCode {
    if let Err(error) = threads::check() {
        say(&format!("error: {}", explain(&error)));
        return ExitCode::from(REFUSED);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Help and version are answers; they fail only if they cannot be printed.
            let is_printed = answer.print().is_ok();
            let code = if is_printed { u8::try_from(answer.exit_code()).unwrap_or(REFUSED) } else { REFUSED };
            return ExitCode::from(code);
        }
    };
    let result = match arguments.command {
        Command::ReproduceIoi(arguments) => reproduce_ioi::run(&arguments),
        Command::ReproduceIg(arguments) => reproduce_ig::run(&arguments),
        Command::ReproducePythia(arguments) => reproduce_pythia::run(&arguments),
        Command::ReproduceFacts(arguments) => reproduce_facts::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::TrainToy(arguments) => train_toy::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => compute::again_with_half(&error).unwrap_or_else(|| {
            say(&format!("error: {}", explain(&error)));
            ExitCode::from(REFUSED)
        }),
    }
}
