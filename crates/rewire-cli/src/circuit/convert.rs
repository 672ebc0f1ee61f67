//! `rewire circuit convert`: checks a circuit file against a model, and writes it anew.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rewire_report::names::counted;

use super::drawing::graph;
use super::file::{SignName, read};
use crate::headings::OUTPUT;
use crate::model::{ModelArguments, Source};
use crate::output::{print, say};
use crate::pairs::{check_replaceable, write};

#[derive(Args)]
pub(super) struct Arguments {
    /// Circuit of EAP-IG or MIB (JSON).
    file: PathBuf,
    /// Format to write: json (EAP-IG and MIB) or dot (Graphviz).
    #[arg(long, value_enum, default_value = "json", hide_possible_values = true, value_name = "FORMAT", help_heading = OUTPUT)]
    to: FormatName,
    /// Sign of the scores: as-written or opposite.
    ///
    /// A positive score must mean that corrupting the edge hurts. Early files, MIB's published
    /// example among them, have the opposite sign.
    #[arg(long, value_enum, default_value = "as-written", hide_possible_values = true, value_name = "SIGN")]
    sign: SignName,
    /// Remove edges that lie on no path from the input to the logits.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    model: ModelArguments,
    /// File to write, or - for standard output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    out: PathBuf,
    /// Replace the file if it exists.
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    Json,
    Dot,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let source = Source::open(&arguments.model)?;
    let mut found = read(&arguments.file, &source.config, arguments.sign)?;
    found.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    if arguments.prune {
        found.circuit = found.circuit.pruned();
    }
    let contents = match arguments.to {
        FormatName::Json => found.write(&source.config)?,
        FormatName::Dot => graph(&found).to_dot().into_bytes(),
    };
    let text = String::from_utf8_lossy(&contents);
    if arguments.out.as_os_str() == "-" {
        return print(&text);
    }
    check_replaceable(&arguments.out, arguments.force)?;
    write(&text, &arguments.out)?;
    let (inside, all) = (found.circuit.len(), found.scores.graph.n_edges());
    print(&format!("{inside} of {} written to {}\n", counted(all, "edge"), arguments.out.display()))
}
