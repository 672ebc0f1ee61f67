//! Named tables of numbers, and how they were made.

use ndarray::ArrayD;
use rewire_analysis::edges::{EdgeEffects, EdgeGraph};
use rewire_analysis::node::By;
use rewire_analysis::run::{Direction, Scale};
use rewire_analysis::{Baselines, Effects, Method, Reduce};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde_json::Value;

use crate::error::ReportError;
use crate::labels::Labels;
use crate::units;

/// The meaning of the numbers in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Effects, attributions or direct contributions.
    Effect,
    /// The metric after each node was ablated.
    MetricAfter,
    /// Standard errors of effects.
    StandardError,
    /// Lower or upper ends of intervals of effects.
    IntervalEnd,
    /// P-values.
    PValue,
    /// The sum of attributions minus the change of the metric.
    Gap,
    /// Another number, which the name of the table and the notes explain.
    #[default]
    Other,
}

/// A named table of effects, as stored on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Name of the tensor.
    pub name: String,
    /// Names of the axes; see [`AXES`](crate::AXES).
    pub axes: Vec<String>,
    /// The numbers.
    pub values: ArrayD<f32>,
    /// Names of the nodes along the axis `node`, or of the edges along the axis `edge`, if there is
    /// one.
    pub nodes: Vec<String>,
    /// The graph whose writers and readers stand along the axes `writer` and `reader`, if the table
    /// has them.
    pub edges: Option<EdgeGraph>,
    /// Whether each node is at the marked position of each prompt.
    pub is_at_marks: bool,
    /// The meaning of the numbers.
    pub quantity: Quantity,
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
        let nodes = effects.nodes.iter().map(ToString::to_string).collect();
        let is_at_marks = effects.kind.by == By::Marked;
        Self { nodes, is_at_marks, prompts_by_position, ..Self::of(name, axes, values, outcome) }
    }

    /// Creates a table of effects with these axes from numbers that belong to an outcome.
    #[must_use]
    pub fn of(name: String, axes: Vec<String>, values: ArrayD<f32>, outcome: &rewire_analysis::Outcome) -> Self {
        Self {
            name,
            axes,
            values,
            nodes: Vec::new(),
            edges: None,
            is_at_marks: false,
            quantity: Quantity::Effect,
            method: Some(outcome.method),
            direction: Some(outcome.direction),
            scale: Some(outcome.scale),
            prompts_by_position: None,
        }
    }

    /// Creates a table of the effects of all edges.
    #[must_use]
    pub fn of_edges(name: String, effects: &EdgeEffects, reduce: Reduce) -> Self {
        let axes = ["prompt", "writer", "reader"].map(str::to_owned);
        let (axes, values) = match reduce {
            Reduce::PerPrompt => (axes.to_vec(), effects.values.clone().into_dyn()),
            Reduce::Mean => (axes[1..].to_vec(), effects.mean().into_dyn()),
        };
        Self {
            name,
            axes,
            values,
            edges: Some(effects.graph),
            quantity: Quantity::Effect,
            method: Some(effects.method),
            direction: Some(effects.direction),
            scale: Some(effects.scale),
            ..Self::default()
        }
    }

    /// Returns the unit of the numbers, which were measured with the metric of this name. `None` if
    /// it is not known.
    #[must_use]
    pub fn unit(&self, metric: &str) -> Option<&'static str> {
        match self.quantity {
            Quantity::PValue => Some("p-value"),
            Quantity::Other => None,
            _ => self.scale.map(|scale| units::unit(metric, scale)),
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
    /// The sentences that the report opens with.
    pub finding: Vec<String>,
    /// Warnings about these tables, one line each.
    pub warnings: Vec<String>,
    /// Further notes on these tables: intervals, screening, batches.
    pub notes: Value,
    /// The token in front of tokenized text, and the option that chose it.
    pub tokenization: Value,
    /// The files, the program and the machine that made the tables, an object.
    pub provenance: Value,
    /// The time at which the run started, such as `2026-11-28T02:00:00Z`.
    pub started: Option<String>,
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

/// Returns baselines in the format of `effects.json`: means, and the metric of each prompt.
#[must_use]
pub fn describe_baselines(baselines: &Baselines) -> Value {
    let [clean_mean, corrupted_mean] = baselines.means();
    let Baselines { clean, corrupted } = baselines;
    serde_json::json!({
        "clean_mean": clean_mean, "corrupted_mean": corrupted_mean, "clean": clean, "corrupted": corrupted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_follows_the_quantity_and_the_scale() {
        let unit = |quantity, scale| Table { quantity, scale, ..Table::default() }.unit("logit-diff");
        assert_eq!(unit(Quantity::Effect, Some(Scale::Metric)), Some("logits"));
        assert_eq!(unit(Quantity::IntervalEnd, Some(Scale::Normalized)), Some(units::SHARE));
        assert_eq!(unit(Quantity::PValue, Some(Scale::Normalized)), Some("p-value"));
        assert_eq!([unit(Quantity::Effect, None), unit(Quantity::Other, Some(Scale::Metric))], [None, None]);
    }
}
