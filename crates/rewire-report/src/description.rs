//! The contents of `effects.json`: how the tables of a run were made, and what they hold.

use std::collections::BTreeMap;

use rewire_analysis::Method;
use rewire_analysis::run::{Direction, Scale};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::axis_labels::{self, AxisLabels};
use crate::charts::Support;
use crate::csv_lines::CSV_LIMIT;
use crate::described_pairs;
use crate::error::ReportError;
use crate::tables::{About, Quantity, Table};

/// Version of the schema of `effects.json`. It grows when a key changes its meaning or is removed,
/// and stays when a key is added.
pub const SCHEMA: u32 = 1;

/// The contents of `effects.json`. It borrows [`About`], because the labels of 100,000 prompts are
/// too large to copy.
#[derive(Serialize)]
pub(crate) struct Description<'a> {
    schema: u32,
    #[serde(flatten)]
    about: &'a About<'a>,
    pairs: Value,
    axes: BTreeMap<&'a str, &'a [String]>,
    tensors: Vec<Value>,
    files: BTreeMap<&'a str, Value>,
}

/// Returns the contents of `effects.json`; `files` describes the other files of the run.
pub(crate) fn description<'a>(
    tables: &'a [Table],
    about: &'a About<'a>,
    labels: &AxisLabels,
    files: BTreeMap<&'a str, Value>,
) -> Result<Description<'a>, ReportError> {
    let axes = tables.iter().map(|t| (t.name.as_str(), t.axes.as_slice())).collect();
    let tensors = tables.iter().map(|table| described(table, &about.metric, labels)).collect();
    Ok(Description { schema: SCHEMA, about, pairs: described_pairs::describe(&about.labels)?, axes, tensors, files })
}

fn described(table: &Table, metric: &str, labels: &AxisLabels) -> Value {
    let set = labels.of_table(&table.name);
    let of_axis = |axis: &String| Some((axis.clone(), json!(axis_labels::labels(table, axis, set)?)));
    let labels: Map<String, Value> = table.axes.iter().filter_map(of_axis).collect();
    json!({
        "name": table.name,
        "shape": table.values.shape(),
        "axes": table.axes,
        "labels": labels,
        "quantity": table.quantity,
        "unit": table.unit(metric),
        "sign": sign(table, metric),
        "method": table.method,
        "direction": table.direction,
        "scale": table.scale,
        "prompts_by_position": table.prompts_by_position,
        "in_csv": axis_labels::n_numbers(table) <= CSV_LIMIT,
    })
}

/// Returns a sentence on the sign of the numbers in a table, which were measured with the metric of
/// this name. `None` if their sign says nothing or is explained by the notes.
fn sign(table: &Table, metric: &str) -> Option<String> {
    match table.quantity {
        Quantity::StandardError | Quantity::PValue | Quantity::Other => None,
        Quantity::Gap => Some("positive: the attributions sum to more than the change of the metric".to_owned()),
        Quantity::MetricAfter => Some(match table.scale? {
            Scale::Normalized => {
                "the metric with the node ablated, not a change: 1 is the clean mean, 0 the corrupted mean".to_owned()
            }
            Scale::Metric => "the metric with the node ablated, not a change of it".to_owned(),
        }),
        Quantity::Effect | Quantity::IntervalEnd => {
            let (method, direction, scale) = (table.method?, table.direction?, table.scale?);
            let supports = match Support::of(method, direction, scale, metric) {
                Support::Above => "; above 0 supports the behavior",
                Support::Below => "; below 0 supports the behavior",
                Support::Unknown => "",
            };
            Some(format!("{}{supports}", of_effects(method, direction, scale)))
        }
    }
}

/// Returns what the sign of effects means.
fn of_effects(method: Method, direction: Direction, scale: Scale) -> &'static str {
    match (method, direction, scale) {
        (Method::LogitAttribution, ..) => "positive: raises the logits of the answers above those of the wrong answers",
        (Method::Ablation, ..) => "negative: the metric falls without the node",
        (Method::IntegratedGradients, ..) => {
            "negative: the metric falls on the line from the node's clean activation to the baseline"
        }
        (_, Direction::Denoising, Scale::Normalized) => "positive: moves toward clean (1: to the clean mean)",
        (_, Direction::Noising, Scale::Normalized) => "negative: moves toward corrupted (-1: to the corrupted mean)",
        (_, Direction::Denoising, Scale::Metric) => "positive: the clean activation raises the metric",
        (_, Direction::Noising, Scale::Metric) => "negative: the corrupted activation lowers the metric",
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};

    use super::*;

    fn table(quantity: Quantity, method: Method, direction: Direction, scale: Scale) -> Table {
        Table {
            name: "head_z".to_owned(),
            axes: ["layer", "neuron"].map(str::to_owned).to_vec(),
            values: ArrayD::zeros(IxDyn(&[2, 3])),
            quantity,
            method: Some(method),
            direction: Some(direction),
            scale: Some(scale),
            ..Table::default()
        }
    }

    #[test]
    fn a_table_has_unit_sign_scale_and_labels() {
        let patched = table(Quantity::Effect, Method::ActivationPatching, Direction::Denoising, Scale::Normalized);
        let tables = [patched];
        let about = About { metric: "logit-diff-normalized".to_owned(), ..About::default() };
        let labels = AxisLabels::new(&about.labels);
        let json = serde_json::to_value(description(&tables, &about, &labels, BTreeMap::new()).unwrap()).unwrap();
        assert_eq!([&json["schema"], &json["pairs"]], [&json!(SCHEMA), &Value::Null]);
        let described = &json["tensors"][0];
        assert_eq!(described["labels"], json!({ "layer": ["L0", "L1"] }), "neurons have no labels");
        assert_eq!(described["quantity"], "effect");
        assert_eq!(described["unit"], crate::units::SHARE);
        assert_eq!(described["scale"], "normalized");
        assert!(described["sign"].as_str().unwrap().starts_with("positive: moves toward clean"));
    }

    #[test]
    fn the_sign_follows_the_method_the_direction_and_the_metric() {
        let sign_of = |quantity, method, direction, metric| {
            sign(&table(quantity, method, direction, Scale::Metric), metric).unwrap_or_default()
        };
        let (patching, ablation) = (Method::AttributionPatching, Method::Ablation);
        let of_patching = |direction, metric| sign_of(Quantity::Effect, patching, direction, metric);
        assert_eq!(
            of_patching(Direction::Denoising, "logit-diff"),
            "positive: the clean activation raises the metric; above 0 supports the behavior"
        );
        assert!(of_patching(Direction::Noising, "logit-diff").ends_with("below 0 supports the behavior"));
        assert!(of_patching(Direction::Denoising, "kl").ends_with("below 0 supports the behavior"));
        let after = sign_of(Quantity::MetricAfter, ablation, Direction::Noising, "logit-diff");
        assert!(after.starts_with("the metric with the node ablated"), "{after}");
        assert_eq!(sign_of(Quantity::PValue, patching, Direction::Denoising, "logit-diff"), "");
    }
}
