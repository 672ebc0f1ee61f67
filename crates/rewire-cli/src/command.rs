//! The commands and their arguments.

use clap::{CommandFactory, Parser, Subcommand};

use crate::interrupt::Interrupts;
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
    /// Patch your own prompt pairs, by any method, at any kind of node.
    Sweep(sweep::Arguments),
    /// Check or convert a file of prompt pairs, without running a model.
    Pairs(pairs::Arguments),
    /// List the models that --model takes by name.
    Models,
    /// Find the heads that do indirect object identification.
    ///
    /// Reproduces the attribution-patching demo.
    ReproduceIoi(reproduce_ioi::Arguments),
    /// Compare integrated gradients with activation patching.
    ///
    /// Reproduces a notebook's comparison, and its ablation study.
    ReproduceIg(reproduce_ig::Arguments),
    /// Find the circuit for indirect object identification, step by step.
    ///
    /// Reproduces the Pythia notebook.
    ReproducePythia(reproduce_pythia::Arguments),
    /// Find the layers and positions that recall a landmark's city.
    ///
    /// Reproduces the factual-recall example. The example's model is gpt2-xl, which needs 9 GB.
    ReproduceFacts(reproduce_facts::Arguments),
    /// Time each sweep on models of known shapes.
    ///
    /// Compares each time with its lower bound.
    Bench(bench::Arguments),
    /// Print a completion script for a shell.
    Completions(shell::CompletionArguments),
    /// Print the manual page, in roff.
    Man,
}

impl Command {
    /// Runs the command, prints a summary, and writes the results. Reports to `interrupts` how far
    /// the command is.
    ///
    /// # Errors
    /// Returns the first error. [`start`](fn@crate::start) prints it as one line and exits with
    /// code 2.
    pub fn run(&self, interrupts: &Interrupts) -> anyhow::Result<()> {
        match self {
            Command::ReproduceIoi(arguments) => reproduce_ioi::run(arguments, interrupts),
            Command::ReproduceIg(arguments) => reproduce_ig::run(arguments, interrupts),
            Command::ReproducePythia(arguments) => reproduce_pythia::run(arguments, interrupts),
            Command::ReproduceFacts(arguments) => reproduce_facts::run(arguments, interrupts),
            Command::Sweep(arguments) => sweep::run(arguments, interrupts),
            Command::Models => models::run(),
            Command::Pairs(arguments) => pairs::run(arguments),
            Command::Bench(arguments) => bench::run(arguments, interrupts),
            Command::Completions(arguments) => shell::completions(Arguments::command(), arguments),
            Command::Man => shell::manual(Arguments::command()),
        }
    }
}
