//! The command `rewire grid`: sweeps over models, revisions, tasks and seeds, from one TOML file.

mod cells;
mod file;
mod flags;
mod panels;
mod prompts;
mod report;
mod results;
mod run;
mod sentences;
mod table;

use std::path::PathBuf;

use clap::Args;

use crate::headings::OUTPUT;
use crate::interrupt::Interrupts;
use crate::output::{OutputArguments, print, text_table};

/// Example of a grid.
const EXAMPLE: &str = "\
Example of a file, checkpoints.toml:
  [sweep]                         # flags of `rewire sweep`, for every cell
  nodes = \"head_z\"

  [[models]]
  model = \"pythia-160m\"
  revisions = [\"step1000\", \"step10000\", \"step143000\"]

  [[tasks]]
  ioi = 40                        # generated pairs, drawn by each seed

  [[tasks]]
  pairs = \"capitals.jsonl\"";

#[derive(Args)]
#[command(before_help = EXAMPLE)]
pub struct Arguments {
    /// TOML file of the grid.
    ///
    /// Its keys are title, seeds, [sweep], [[models]] (model, name, revisions) and [[tasks]] (pairs
    /// or ioi, corruption, name, sweep). Paths in it are relative to its folder. docs/grid.md has
    /// all rules.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the cells of the grid, and run none.
    #[arg(long, help_heading = OUTPUT)]
    dry_run: bool,
    /// Directory for the results.
    ///
    /// The files are grid.csv, grid.json and report.html, and a directory for each cell with the
    /// files of `rewire sweep`.
    #[arg(long, default_value = "out/grid", value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let Arguments { file, dry_run, out, output } = arguments;
    let file = file::Toml::read(file)?;
    let grid = file.parse()?;
    let cells = cells::cells(&file, &grid, out, &output.words())?;
    match dry_run {
        true => print(&listed(&cells)),
        false => run::run(&file, &grid, &cells, out, output, interrupts),
    }
}

/// Returns the cells as a table.
fn listed(cells: &[cells::Cell]) -> String {
    let row = |(number, cell): (usize, &cells::Cell)| {
        let mut row = vec![(number + 1).to_string()];
        row.extend(cell.coordinates());
        row.push(cell.directory.display().to_string());
        row
    };
    let rows: Vec<Vec<String>> = cells.iter().enumerate().map(row).collect();
    text_table(&["cell", "model", "revision", "task", "seed", "directory"], &rows)
}
