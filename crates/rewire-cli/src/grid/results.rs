//! The results of a cell, read from the files in its directory.

use std::path::Path;

use anyhow::Context;
use rewire_analysis::Method;
use rewire_analysis::run::{Direction, Scale};
use rewire_report::TABLE_FILES;
use rewire_report::charts::Support;
use rewire_report::noise::ROUNDING;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How a cell ended.
pub(super) enum Ended {
    Finished(Box<CellResults>),
    /// With this error.
    Failed(String),
}

impl Ended {
    /// Returns the results of a finished cell.
    pub(super) fn results(&self) -> Option<&CellResults> {
        match self {
            Ended::Finished(found) => Some(found),
            Ended::Failed(_) => None,
        }
    }
}

/// The results of a cell.
#[derive(Debug, PartialEq)]
pub(super) struct CellResults {
    /// Name of the metric.
    pub(super) metric: String,
    /// Number of prompt pairs.
    pub(super) pairs: u64,
    /// Number of clean and of corrupted prompts on which the model is right, if they were counted.
    pub(super) right: Option<[u64; 2]>,
    /// Mean metric on the clean and on the corrupted prompts.
    pub(super) means: [f64; 2],
    /// Warnings about the results.
    pub(super) warnings: Vec<String>,
    /// The tables of effects.
    pub(super) tables: Vec<Effects>,
}

/// A table of mean effects.
#[derive(Debug, PartialEq)]
pub(super) struct Effects {
    /// Name of the table, such as `head_z`.
    pub(super) name: String,
    /// Unit of the effects.
    pub(super) unit: String,
    /// The sign that supports the behavior.
    pub(super) support: Support,
    /// Effects nearer to 0 may be rounding.
    pub(super) floor: f32,
    /// Names of the nodes and their effects.
    pub(super) nodes: Vec<(String, f32)>,
}

impl CellResults {
    /// Reads the results in a directory. Tables that are too large for effects.csv are left out.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let [csv, json] = [TABLE_FILES[1], TABLE_FILES[2]].map(|name| directory.join(name));
        let failed = |path: &Path| format!("cannot read the results in {}", path.display());
        let text = std::fs::read(&json).with_context(|| failed(&json))?;
        let described: Value = serde_json::from_slice(&text).with_context(|| failed(&json))?;
        let baselines = &described["baselines"];
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let counts = ["clean_correct", "corrupted_correct"].map(|key| baselines[key].as_u64());
        let warnings = described["warnings"].as_array().into_iter().flatten();
        let metric = described["metric"].as_str().unwrap_or_default().to_owned();
        let tables = described["tensors"].as_array().into_iter().flatten();
        let mut tables: Vec<Effects> = tables.filter_map(|table| empty(table, &metric)).collect();
        let means = ["clean_mean", "corrupted_mean"].map(|key| number(&baselines[key]));
        for table in &mut tables {
            table.floor = floor(&table.unit, means);
        }
        let mut rows = csv::Reader::from_path(&csv).with_context(|| failed(&csv))?;
        for row in rows.deserialize() {
            let Row { table, node, value } = row.with_context(|| failed(&csv))?;
            if let Some(table) = tables.iter_mut().find(|known| known.name == table) {
                table.nodes.push((node, value));
            }
        }
        tables.retain(|table| !table.nodes.is_empty());
        Ok(Self {
            metric,
            pairs: described["pairs"]["number"].as_u64().unwrap_or_default(),
            right: counts[0].zip(counts[1]).map(|(clean, corrupted)| [clean, corrupted]),
            means,
            warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
            tables,
        })
    }

    /// Returns the share of clean prompts on which the model is right.
    pub(super) fn share_right(&self) -> Option<f64> {
        self.right.map(|[clean, _]| clean as f64 / self.pairs.max(1) as f64)
    }

    /// Returns the table, the name and the effect of the node of largest effect.
    pub(super) fn largest(&self) -> Option<(&str, &str, f32)> {
        let all = self.tables.iter().flat_map(|table| table.nodes.iter().map(move |node| (table, node)));
        let all = all.map(|(table, (node, value))| (table.name.as_str(), node.as_str(), *value));
        let all = all.filter(|(_, _, value)| value.is_finite());
        all.max_by(|a, b| a.2.abs().total_cmp(&b.2.abs()))
    }
}

/// A row of effects.csv.
#[derive(Deserialize)]
struct Row {
    table: String,
    node: String,
    value: f32,
}

/// Returns a described table without its nodes; `None` for a table of other numbers than effects.
/// They were measured with the metric of this name.
fn empty(described: &Value, metric: &str) -> Option<Effects> {
    let quantity = described["quantity"].as_str()?;
    // The metric after an ablation is drawn as it is: blue is above 0.
    let support = match quantity {
        "effect" => Support::of(
            of_text::<Method>(&described["method"])?,
            of_text::<Direction>(&described["direction"])?,
            of_text::<Scale>(&described["scale"])?,
            metric,
        ),
        "metric-after" => Support::Unknown,
        _ => return None,
    };
    Some(Effects {
        name: described["name"].as_str()?.to_owned(),
        unit: described["unit"].as_str().unwrap_or_default().to_owned(),
        support,
        floor: 0.0,
        nodes: Vec::new(),
    })
}

fn of_text<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

/// Returns the size below which effects in a unit may be float32 rounding.
fn floor(unit: &str, [clean, corrupted]: [f64; 2]) -> f32 {
    let size = clean.abs().max(corrupted.abs());
    match unit {
        "logits" | "nats" => ROUNDING * size.max(1.0) as f32,
        _ => ROUNDING,
    }
}
