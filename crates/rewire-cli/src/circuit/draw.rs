//! `rewire circuit draw`: a circuit as a picture (SVG), or as a graph for Graphviz (DOT).

use std::path::{Path, PathBuf};

use clap::Args;
use rewire_report::names::counted;
use rewire_report::svg;

use super::drawing::graph;
use super::file::{SignName, read_alone};
use crate::arguments::at_least_one;
use crate::headings::OUTPUT;
use crate::output::{print, say};
use crate::pairs::{check_replaceable, write};

#[derive(Args)]
pub(super) struct Arguments {
    /// Circuit of EAP-IG or MIB (JSON).
    file: PathBuf,
    /// Draw only the edges of largest score.
    #[arg(long, value_parser = at_least_one, value_name = "N")]
    edges: Option<usize>,
    /// Sign of the scores: as-written or opposite.
    ///
    /// A positive score must mean that corrupting the edge hurts. Early files, MIB's published
    /// example among them, have the opposite sign.
    #[arg(long, value_enum, default_value = "as-written", hide_possible_values = true, value_name = "SIGN")]
    sign: SignName,
    /// File to write: a picture if its name ends in .svg, a graph for Graphviz if it ends in .dot.
    ///
    /// - writes the graph for Graphviz to standard output.
    #[arg(long, default_value = "circuit.svg", value_name = "FILE", help_heading = OUTPUT)]
    out: PathBuf,
    /// Replace the file if it exists.
    #[arg(long, help_heading = OUTPUT)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (found, _) = read_alone(&arguments.file, arguments.sign)?;
    found.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let all = graph(&found);
    anyhow::ensure!(
        !all.nodes.is_empty(),
        "{}: the circuit has no edges; there is nothing to draw",
        arguments.file.display()
    );
    let drawn = match arguments.edges {
        Some(n) if !all.edges.is_empty() => all.strongest(n),
        _ => all.clone(),
    };
    let out = &arguments.out;
    if out.as_os_str() == "-" {
        return print(&drawn.to_dot());
    }
    let what = match (all.edges.len(), drawn.edges.len()) {
        (0, _) => format!("circuit of {}", counted(drawn.nodes.len(), "node")),
        (n, m) if m < n => format!("{m} of {} of the circuit", counted(n, "edge")),
        (n, _) => format!("circuit of {}", counted(n, "edge")),
    };
    let name = arguments.file.file_name().unwrap_or_default().to_string_lossy();
    let contents = match extension(out) {
        Some("svg") => svg(&drawn, &format!("{name}: {what}")),
        Some("dot" | "gv") => drawn.to_dot(),
        _ => {
            anyhow::bail!("{}: the name of the drawing must end in .svg (a picture) or .dot (Graphviz)", out.display())
        }
    };
    check_replaceable(out, arguments.force)?;
    write(&contents, out)?;
    print(&format!("{what} drawn in {}\n", out.display()))
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|extension| extension.to_str())
}
