//! The table over all cells, as CSV, as JSON and as text.

use rewire_report::numbers::number;
use serde_json::{Map, Value, json};

use super::cells::Cell;
use super::results::{CellResults, Ended};

/// Columns of grid.csv.
const COLUMNS: [&str; 15] = [
    "model",
    "revision",
    "task",
    "seed",
    "status",
    "pairs",
    "clean_correct",
    "corrupted_correct",
    "metric",
    "clean_mean",
    "corrupted_mean",
    "table",
    "node",
    "value",
    "unit",
];

/// Returns the table as CSV: one row for each node of each cell, and one row for a failed cell.
pub(super) fn csv(cells: &[Cell], ended: &[Ended]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for (cell, ended) in cells.iter().zip(ended) {
        let coordinates = coordinates(cell);
        let Some(found) = ended.results() else {
            let empty = vec![String::new(); COLUMNS.len() - coordinates.len() - 1];
            writer.write_record(coordinates.into_iter().chain(["failed".to_owned()]).chain(empty))?;
            continue;
        };
        let [clean, corrupted] =
            found.right.map_or([String::new(), String::new()], |right| right.map(|n| n.to_string()));
        let [mean, corrupted_mean] = found.means.map(|mean| mean.to_string());
        let of_cell = ["finished".to_owned(), found.pairs.to_string(), clean, corrupted, found.metric.clone()];
        let of_cell: Vec<String> = coordinates.into_iter().chain(of_cell).chain([mean, corrupted_mean]).collect();
        for table in &found.tables {
            for (node, value) in &table.nodes {
                let of_node = [table.name.clone(), node.clone(), value.to_string(), table.unit.clone()];
                writer.write_record(of_cell.iter().cloned().chain(of_node))?;
            }
        }
    }
    Ok(writer.into_inner().map_err(|error| error.into_error())?)
}

/// Returns the table as JSON: one object for each cell, with the command that computes it alone.
pub(super) fn json(grid: &Value, cells: &[Cell], ended: &[Ended]) -> anyhow::Result<Vec<u8>> {
    let cells: Vec<Value> = cells.iter().zip(ended).map(|(cell, ended)| described(cell, ended)).collect();
    let versions = json!({ "rewire": env!("CARGO_PKG_VERSION") });
    let mut text =
        serde_json::to_vec_pretty(&json!({ "schema": 1, "grid": grid, "cells": cells, "versions": versions }))?;
    text.push(b'\n');
    Ok(text)
}

fn described(cell: &Cell, ended: &Ended) -> Value {
    let mut described = json!({
        "model": cell.model,
        "revision": cell.revision,
        "task": cell.task,
        "seed": cell.seed,
        "directory": cell.directory.display().to_string(),
        "command": cell.command,
    });
    match ended {
        Ended::Failed(problem) => {
            described["status"] = json!("failed");
            described["error"] = json!(problem);
        }
        Ended::Finished(found) => {
            described["status"] = json!("finished");
            let CellResults { metric, pairs, right, means, warnings, tables } = &**found;
            let tables = tables.iter().map(|table| {
                let nodes: Map<String, Value> =
                    table.nodes.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                (table.name.clone(), json!({ "unit": table.unit, "nodes": nodes }))
            });
            described["metric"] = json!(metric);
            described["pairs"] = json!(pairs);
            described["clean_correct"] = json!(right.map(|[clean, _]| clean));
            described["corrupted_correct"] = json!(right.map(|[_, corrupted]| corrupted));
            described["clean_mean"] = json!(means[0]);
            described["corrupted_mean"] = json!(means[1]);
            described["warnings"] = json!(warnings);
            described["effects"] = Value::Object(tables.collect());
        }
    }
    described
}

/// Returns the coordinates of a cell; empty for what it lacks.
fn coordinates(cell: &Cell) -> Vec<String> {
    let seed = cell.seed.map_or_else(String::new, |seed| seed.to_string());
    vec![cell.model.clone(), cell.revision.clone().unwrap_or_default(), cell.task.clone(), seed]
}

/// Header of [`summary`].
pub(super) const SUMMARY: [&str; 9] =
    ["model", "revision", "task", "seed", "pairs", "right", "clean", "corrupted", "largest effect"];

/// Returns one row for each cell: its coordinates, the share of prompts on which the model is
/// right, the mean metric, and the node of largest effect.
pub(super) fn summary(cells: &[Cell], ended: &[Ended]) -> Vec<Vec<String>> {
    let row = |(cell, ended): (&Cell, &Ended)| {
        let mut row = cell.coordinates().to_vec();
        let dash = || "-".to_owned();
        match ended.results() {
            None => row.extend(["failed".to_owned(), dash(), dash(), dash(), dash()]),
            Some(found) => {
                let right = found.share_right().map_or_else(dash, |share| format!("{:.0}%", 100.0 * share));
                let [clean, corrupted] = found.means.map(number);
                let largest = found
                    .largest()
                    .map_or_else(dash, |(table, node, value)| format!("{table} {node} {}", number(value)));
                row.extend([found.pairs.to_string(), right, clean, corrupted, largest]);
            }
        }
        row
    };
    cells.iter().zip(ended).map(row).collect()
}
