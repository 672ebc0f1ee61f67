//! The commands and their arguments.

use clap::{CommandFactory, Parser, Subcommand};

use crate::{bench, models, pairs, reproduce_facts, reproduce_ig, reproduce_ioi, reproduce_pythia, shell, sweep};

/// Find which parts of a transformer language model cause a behavior.
#[derive(Parser)]
#[command(name = "rewire", version, max_term_width = 110)]
pub struct Arguments {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of `rewire`.
#[derive(Subcommand)]
pub enum Command {
    /// Reproduce the attribution-patching demo: find the heads that do indirect object
    /// identification.
    ReproduceIoi(reproduce_ioi::Arguments),
    /// Reproduce the comparison of integrated gradients with activation patching, and its ablation
    /// study.
    ReproduceIg(reproduce_ig::Arguments),
    /// Reproduce the Pythia notebook: find the circuit for indirect object identification step by
    /// step.
    ReproducePythia(reproduce_pythia::Arguments),
    /// Reproduce the factual-recall example: find the layers and positions that recall a landmark's
    /// city. The example's model is gpt2-xl, which needs 9 GB.
    ReproduceFacts(reproduce_facts::Arguments),
    /// Patch your own prompt pairs, by any method, at any kind of node.
    Sweep(sweep::Arguments),
    /// List the models that --model takes by name.
    Models,
    /// Check a file of prompt pairs, or convert it to JSON Lines, without running a model.
    Pairs(pairs::Arguments),
    /// Time each sweep on models of known shapes, and compare it with its lower bound.
    Bench(bench::Arguments),
    /// Print a completion script for a shell.
    Completions(shell::CompletionArguments),
    /// Print the manual page, in roff.
    Man,
}

impl Command {
    /// Runs the command, prints a summary, and writes the results.
    ///
    /// # Errors
    /// Returns the first error. [`start`](fn@crate::start) prints it as one line and exits with
    /// code 2.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Command::ReproduceIoi(arguments) => reproduce_ioi::run(arguments),
            Command::ReproduceIg(arguments) => reproduce_ig::run(arguments),
            Command::ReproducePythia(arguments) => reproduce_pythia::run(arguments),
            Command::ReproduceFacts(arguments) => reproduce_facts::run(arguments),
            Command::Sweep(arguments) => sweep::run(arguments),
            Command::Models => models::run(),
            Command::Pairs(arguments) => pairs::run(arguments),
            Command::Bench(arguments) => bench::run(arguments),
            Command::Completions(arguments) => shell::completions(Arguments::command(), arguments),
            Command::Man => shell::manual(Arguments::command()),
        }
    }
}
