//! The commands and their arguments.

use clap::{CommandFactory, Parser, Subcommand};

use crate::interrupt::Interrupts;
use crate::{
    bench, circuit, grid, merge, models, pairs, reproduce_facts, reproduce_ig, reproduce_ioi, reproduce_pythia, shell,
    slurm, sweep, verify,
};

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
    Sweep(Box<sweep::Arguments>),
    /// Sweep a grid of models, revisions, tasks and seeds, from one TOML file.
    ///
    /// Each cell of the grid is a sweep with a directory of its own. One table and one report show
    /// all cells, such as effects across training checkpoints.
    Grid(grid::Arguments),
    /// Put the shards of a command together.
    ///
    /// Writes the results that one process would have written: the same bytes, except the time.
    /// Names the shards that are not finished, and the command for each.
    Merge(merge::Arguments),
    /// Compute a share of a sweep's numbers again, and say whether they hold.
    ///
    /// Reads effects.json in DIR, names the inputs that have changed since, computes a random share
    /// of the numbers again from the recorded command, and compares them. Writes nothing. Exit code
    /// 0: the numbers hold; 1: they do not; 2: the results cannot be verified.
    Verify(verify::Arguments),
    /// Write the Slurm scripts of a command in shards, and submit them.
    ///
    /// A job array computes the shards, and a dependent job merges them. The memory and time of a
    /// sweep are predicted.
    Slurm(slurm::Arguments),
    /// Judge circuits of edges, and exchange them with EAP-IG and MIB.
    Circuit(circuit::Arguments),
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
            Command::Grid(arguments) => grid::run(arguments, interrupts),
            Command::Merge(arguments) => merge::run(arguments, interrupts),
            Command::Verify(arguments) => verify::run(arguments, interrupts),
            Command::Slurm(arguments) => slurm::run(arguments, interrupts),
            Command::Models => models::run(),
            Command::Circuit(arguments) => circuit::run(arguments, interrupts),
            Command::Pairs(arguments) => pairs::run(arguments),
            Command::Bench(arguments) => bench::run(arguments, interrupts),
            Command::Completions(arguments) => shell::completions(Arguments::command(), arguments),
            Command::Man => shell::manual(Arguments::command()),
        }
    }
}
