//! The command `rewire circuit`: circuits of edges, chosen, judged, and exchanged with EAP-IG and
//! MIB.

mod compare;
mod convert;
pub(crate) mod curve_rows;
mod draw;
mod drawing;
mod evaluate;
mod file;
mod find;
mod marginal;
mod outside;
pub(crate) mod ranking_name;
mod scores;

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
    /// Compare the ways to score edges, by MIB's CPR and CMD.
    ///
    /// Each way scores edges on one half of the prompts, and the circuits of the best edges are
    /// judged on the other half, over several random halves.
    Scores(Box<scores::Arguments>),
    /// Compare circuits of one model.
    ///
    /// Counts the edges and nodes that they share, and correlates their scores. With --pairs, also
    /// measures the faithfulness of each on the same prompts, and the differences.
    Compare(Box<compare::Arguments>),
    /// Check a circuit file against a model, and write it anew.
    ///
    /// Reads the JSON of EAP-IG and MIB. Writes it with every edge of the model, or as a graph for
    /// Graphviz.
    Convert(convert::Arguments),
    /// Draw a circuit.
    ///
    /// Writes a picture (SVG), or a graph for Graphviz (DOT). Nodes stand in rows by layer. The
    /// width of an edge is the size of its score; blue supports the behavior, red works against it.
    Draw(draw::Arguments),
}

/// Runs `circuit`.
pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    match &arguments.job {
        Job::Find(arguments) => find::run(arguments, interrupts),
        Job::Evaluate(arguments) => evaluate::run(arguments, interrupts),
        Job::Scores(arguments) => scores::run(arguments, interrupts),
        Job::Compare(arguments) => compare::run(arguments, interrupts),
        Job::Convert(arguments) => convert::run(arguments),
        Job::Draw(arguments) => draw::run(arguments),
    }
}
