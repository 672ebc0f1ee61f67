//! Runs the cells of a grid, one after another, and writes the table and the report.

use std::path::Path;

use anyhow::{bail, ensure};
use rewire_report::names::counted;
use rewire_store::sha256;
use serde_json::json;

use super::cells::Cell;
use super::file::{GridFile, Toml};
use super::results::{CellResults, Ended};
use super::{report, table};
use crate::interrupt::{Interrupts, is_interrupt};
use crate::output::{OutputArguments, explain, print, say, text_table};
use crate::publish::REPORT;
use crate::session::fault;
use crate::sweep::{CellRun, run_cell};

/// Names of the files that a grid writes beside the directories of its cells.
const FILES: [&str; 3] = ["grid.csv", "grid.json", REPORT];

/// Runs the cells that are not finished, and writes the table and the report over all.
pub(super) fn run(
    file: &Toml,
    grid: &GridFile,
    cells: &[Cell],
    out: &Path,
    output: &OutputArguments,
    interrupts: &Interrupts,
) -> anyhow::Result<()> {
    check_replaceable(out, output)?;
    let mut ended = Vec::with_capacity(cells.len());
    for (number, cell) in cells.iter().enumerate() {
        let step = format!("cell {} of {}", number + 1, cells.len());
        match interrupts.begin_next().map_err(anyhow::Error::from).and_then(|()| finish(cell, &step, interrupts)) {
            Ok(found) => ended.push(Ended::Finished(Box::new(found))),
            // After a device fault, this process cannot compute any more.
            Err(error) if is_interrupt(&error) || fault(&error).is_some() => {
                let done = ended.iter().filter(|cell| cell.results().is_some()).count();
                say(&format!("{done} of {} are finished; run the same command again to go on", cells_in_words(cells)));
                return Err(error);
            }
            Err(error) => {
                let problem = explain(&error);
                say(&format!("error: {step}, {}: {problem}", cell.in_words()));
                ended.push(Ended::Failed(problem));
            }
        }
    }
    interrupts.begin_next()?;
    let page = report::page(grid.title.as_deref(), cells, &ended);
    let about = json!({
        "file": file.path.display().to_string(),
        "sha256": sha256(file.text.as_bytes()),
        "text": file.text,
        "finding": page.finding_sentences(),
    });
    let files = [
        (FILES[0], table::csv(cells, &ended)?),
        (FILES[1], table::json(&about, cells, &ended)?),
        (FILES[2], page.render().into_bytes()),
    ];
    let directory = output.take_table(out, &FILES)?;
    interrupts.begin_computing(directory.traces());
    interrupts.begin_writing()?;
    directory.publish(&files, &[])?;
    interrupts.finish_writing();
    drop(directory);
    print(&format!(
        "{}\n{}\n{}\n",
        page.finding_sentences().join("\n"),
        text_table(&table::SUMMARY, &table::summary(cells, &ended)),
        format_args!("table: {}; report: {}", out.join(FILES[0]).display(), out.join(REPORT).display())
    ))?;
    let failed: Vec<String> = cells
        .iter()
        .zip(&ended)
        .filter(|(_, ended)| ended.results().is_none())
        .map(|(cell, _)| cell.in_words())
        .collect();
    ensure!(
        failed.is_empty(),
        "{} of {} failed: {}; the lines above say why",
        failed.len(),
        cells_in_words(cells),
        failed.join("; ")
    );
    Ok(())
}

/// Refuses to replace files that `rewire grid` did not write.
fn check_replaceable(out: &Path, output: &OutputArguments) -> anyhow::Result<()> {
    let Some(found) = FILES.iter().find(|name| out.join(name).exists()) else { return Ok(()) };
    let written = std::fs::read(out.join(FILES[1])).ok();
    let written: serde_json::Value = written.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    ensure!(
        written["cells"].is_array() || output.may_replace(),
        "{} holds a file {found} that `rewire grid` did not write; choose another --out, or give --force to replace it",
        out.display()
    );
    Ok(())
}

fn cells_in_words(cells: &[Cell]) -> String {
    counted(cells.len(), "cell")
}

/// Runs a cell, unless it is finished, and reads its results.
fn finish(cell: &Cell, step: &str, interrupts: &Interrupts) -> anyhow::Result<CellResults> {
    if let Some(directory) = cell.of_revision.as_ref().filter(|directory| !directory.is_dir()) {
        bail!("there is no directory {}; the revisions of a local model are its sub-directories", directory.display());
    }
    print(&format!("{step}: {}\n", cell.in_words()))?;
    cell.prompts.write(&cell.arguments.model, &cell.directory)?;
    let ran = run_cell(&cell.arguments, &cell.command, step.to_owned(), interrupts)?;
    let found = CellResults::read(&cell.directory)?;
    print(&match ran {
        CellRun::Before => format!("{step}: finished before\n"),
        CellRun::Now(seconds) => format!("{step}: finished in {seconds:.1} s\n"),
    })?;
    Ok(found)
}
