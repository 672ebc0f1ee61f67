//! Named tables of numbers, and the contents of the three files that store the tables.

use std::collections::BTreeMap;

use ndarray::ArrayD;
use rewire_analysis::run::{Direction, Scale};
use rewire_analysis::{Baselines, Effects, Method, Reduce};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde_json::Value;

use crate::error::ReportError;
use crate::labels::Labels;

/// A named table of effects, as stored on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Name of the tensor.
    pub name: String,
    /// Names of the axes; see [`AXES`].
    pub axes: Vec<String>,
    /// The numbers.
    pub values: ArrayD<f32>,
    /// The method that computed the numbers, if there was one.
    pub method: Option<Method>,
    /// The direction of patching, if a run was patched.
    pub direction: Option<Direction>,
    /// The effect scale of the numbers, if it is known.
    pub scale: Option<Scale>,
    /// Number of prompts in the mean at each position, `[pos]`, for means at positions.
    pub prompts_by_position: Option<Vec<usize>>,
}

impl Table {
    /// Creates a table from the effects of one kind of node.
    #[must_use]
    pub fn new(name: String, effects: &Effects, reduce: Reduce, outcome: &rewire_analysis::Outcome) -> Self {
        let axes = effects.axis_names().into_iter().map(str::to_owned);
        let (axes, values) = match reduce {
            Reduce::PerPrompt => (axes.collect(), effects.values.clone()),
            Reduce::Mean => (axes.skip(1).collect(), effects.mean()),
        };
        let prompts_by_position = match reduce {
            Reduce::PerPrompt => None,
            Reduce::Mean => effects.prompts_by_position(),
        };
        Self { prompts_by_position, ..Self::of(name, axes, values, outcome) }
    }

    /// Creates a table with these axes from numbers that belong to an outcome.
    #[must_use]
    pub fn of(name: String, axes: Vec<String>, values: ArrayD<f32>, outcome: &rewire_analysis::Outcome) -> Self {
        Self {
            name,
            axes,
            values,
            method: Some(outcome.method),
            direction: Some(outcome.direction),
            scale: Some(outcome.scale),
            prompts_by_position: None,
        }
    }
}

/// How a set of tables was made, with everything needed to make it again.
#[derive(Debug, Clone, Default, Serialize)]
pub struct About<'a> {
    /// The command line.
    pub command: Vec<String>,
    /// Everything that the tables depend on, an object. A command replaces the results of a run
    /// with another object only if it is asked to.
    pub run: Value,
    /// The model's name or directory.
    pub model: String,
    /// The model's configuration.
    pub config: Value,
    /// Whether the model's weights were processed.
    pub processed_weights: bool,
    /// The metric.
    pub metric: String,
    /// The device.
    pub device: String,
    /// The precision of the computation, and the passes that were reduced to fit into memory.
    pub computed: Value,
    /// The seed of every random choice, if there were any.
    pub seed: Option<u64>,
    /// Labels of the positions of each prompt, by set of prompts if there are several sets.
    pub labels: Labels<'a>,
    /// The metric on the unpatched runs, from [`describe_baselines`], by set of prompts if there
    /// are several sets.
    pub baselines: Value,
    /// Warnings about these tables, one line each.
    pub warnings: Vec<String>,
    /// Further notes on these tables: intervals, screening, batches.
    pub notes: Value,
    /// The token in front of tokenized text, and the option that chose it.
    pub tokenization: Value,
    /// Seconds since the start of the run.
    pub wall_time_s: f64,
    /// Versions of the software that computed the tables.
    pub versions: Value,
}

impl About<'_> {
    /// Returns the description that needs no model: the command line of this program, and versions.
    #[must_use]
    pub fn this_program() -> Self {
        let command = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        let versions = serde_json::json!({ "rewire": env!("CARGO_PKG_VERSION"), "burn": "0.21.0" });
        Self { command, versions, ..Self::default() }
    }
}

/// Returns the contents of `effects.safetensors`.
pub(crate) fn tensors(tables: &[Table]) -> Result<Vec<u8>, ReportError> {
    let bytes = |t: &Table| t.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<_> = tables.iter().map(bytes).collect();
    let views = tables
        .iter()
        .zip(&data)
        .map(|(table, data)| Ok((&table.name, TensorView::new(Dtype::F32, table.values.shape().to_vec(), data)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize(views, None)?)
}

/// Every axis that a table can have, in the order of the CSV file's columns.
pub const AXES: [&str; 14] = [
    "prompt",
    "layer",
    "head",
    "neuron",
    "layer_end",
    "head_end",
    "input",
    "layer_start",
    "head_start",
    "pos",
    "dest",
    "src",
    "curve",
    "place",
];

/// Most numbers that a table in the CSV file may have. Larger tables are only in the tensors,
/// because nobody would read them as text.
pub const CSV_LIMIT: usize = 50_000;

/// Returns the contents of `effects.csv`.
pub(crate) fn lines(tables: &[Table]) -> Result<Vec<u8>, ReportError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["table"].into_iter().chain(AXES).chain(["value"]))?;
    for table in tables.iter().filter(|t| t.values.len() <= CSV_LIMIT) {
        let columns = AXES.map(|axis| table.axes.iter().position(|a| a == axis));
        for (index, value) in table.values.indexed_iter() {
            let place = columns.map(|c| c.map_or(String::new(), |c| index[c].to_string()));
            writer.write_record([table.name.clone()].into_iter().chain(place).chain([value.to_string()]))?;
        }
    }
    writer.into_inner().map_err(|e| ReportError::Csv(csv::Error::from(e.into_error())))
}

/// Returns baselines in the format of `effects.json`: means, and the metric of each prompt.
#[must_use]
pub fn describe_baselines(baselines: &Baselines) -> Value {
    let [clean_mean, corrupted_mean] = baselines.means();
    let Baselines { clean, corrupted } = baselines;
    serde_json::json!({
        "clean_mean": clean_mean, "corrupted_mean": corrupted_mean, "clean": clean, "corrupted": corrupted,
    })
}

/// The contents of `effects.json`. It borrows [`About`], because the labels of 100,000 prompts are
/// too large to copy.
#[derive(Serialize)]
pub(crate) struct Description<'a> {
    #[serde(flatten)]
    about: &'a About<'a>,
    axes: BTreeMap<&'a str, &'a [String]>,
    tensors: Vec<Value>,
    files: BTreeMap<&'a str, Value>,
}

/// Returns the contents of `effects.json`; `files` describes the other files of the run.
pub(crate) fn description<'a>(
    tables: &'a [Table],
    about: &'a About<'a>,
    files: BTreeMap<&'a str, Value>,
) -> Description<'a> {
    let describe = |table: &Table| {
        serde_json::json!({
            "name": table.name,
            "shape": table.values.shape(),
            "axes": table.axes,
            "method": table.method,
            "direction": table.direction,
            "scale": table.scale,
            "prompts_by_position": table.prompts_by_position,
            "in_csv": table.values.len() <= CSV_LIMIT,
        })
    };
    let axes = tables.iter().map(|t| (t.name.as_str(), t.axes.as_slice())).collect();
    Description { about, axes, tensors: tables.iter().map(describe).collect(), files }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::IxDyn;

    fn table(name: &str, numbers: usize) -> Table {
        let (axes, scale) = (vec!["neuron".to_owned()], Some(Scale::Metric));
        Table {
            name: name.to_owned(),
            axes,
            values: ArrayD::zeros(IxDyn(&[numbers])),
            method: None,
            direction: None,
            scale,
            prompts_by_position: None,
        }
    }

    #[test]
    fn large_tables_are_saved_as_tensors_only() {
        let tables = [table("small", CSV_LIMIT), table("large", CSV_LIMIT + 1)];
        let lines = String::from_utf8(lines(&tables).unwrap()).unwrap();
        assert_eq!(lines.lines().count(), 1 + CSV_LIMIT);
        assert!(!lines.contains("large"));
        let bytes = tensors(&tables).unwrap();
        assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().names().len(), 2);
    }
}
