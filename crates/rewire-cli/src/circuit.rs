//! The command `rewire circuit`: circuits of edges, chosen, judged, and exchanged with EAP-IG and
//! MIB.

mod convert;
pub(crate) mod curve_rows;
mod drawing;
mod evaluate;
mod file;
mod find;
mod outside;
pub(crate) mod ranking_name;

use clap::{Args, Subcommand};

use crate::interrupt::Interrupts;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Find a circuit on one half of the prompts, and judge it on the other.
    ///
    /// Compares it with random circuits of the same size, and with the same search for shuffled
    /// labels. Writes circuit.json, which EAP-IG and MIB read.
    Find(Box<find::Arguments>),
    /// Measure how much of a behavior circuits keep.
    ///
    /// Runs each circuit on the clean prompts; every edge outside it carries the corrupted prompt,
    /// zero or a mean. With --select, judges MIB's ten sizes of the best edges by a file's scores.
    Evaluate(Box<evaluate::Arguments>),
    /// Check a circuit file against a model, and write it anew.
    ///
    /// Reads the JSON of EAP-IG and MIB. Writes it with every edge of the model, or as a graph for
    /// Graphviz.
    Convert(convert::Arguments),
}

/// Runs `circuit`.
pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    match &arguments.job {
        Job::Find(arguments) => find::run(arguments, interrupts),
        Job::Evaluate(arguments) => evaluate::run(arguments, interrupts),
        Job::Convert(arguments) => convert::run(arguments),
    }
}
