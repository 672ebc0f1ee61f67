//! The errors of numbers shorter than float32: the largest and the median error of each table.

use serde_json::{Value, json};

use crate::compute::NumberArguments;

/// Compares one table of the sample in float32 with the same table in the numbers of the sweep.
pub(super) struct Compared {
    pub(super) name: String,
    /// Number of nodes whose effect is not 0 in float32 or in the numbers of the sweep.
    pub(super) nodes: usize,
    /// The largest absolute effect in float32, on the scale of the metric.
    pub(super) largest: f32,
    /// The largest absolute difference, on the scale of the metric.
    pub(super) error: f32,
    /// The median absolute difference, on the scale of the metric.
    pub(super) median: f32,
    /// Pearson correlation of the effects with the effects in float32, over these nodes.
    pub(super) correlation: Option<f64>,
}

/// The errors of shorter numbers on a sample of prompts.
pub(super) struct Shortened {
    /// Number of prompt pairs in the sample. They are the first pairs of the sweep.
    pub(super) prompts: usize,
    pub(super) tables: Vec<Compared>,
}

/// Header of [`Shortened::rows`].
pub(super) const HEADER: [&str; 6] =
    ["kind", "nodes with an effect", "largest effect in float32", "largest error", "median error", "Pearson"];

impl Shortened {
    /// Returns a row for each table.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let row = |table: &Compared| {
            vec![
                table.name.clone(),
                table.nodes.to_string(),
                format!("{:.4}", table.largest),
                format!("{:.1e}", table.error),
                format!("{:.1e}", table.median),
                table.correlation.map_or_else(|| "-".to_owned(), |r| format!("{r:.5}")),
            ]
        };
        self.tables.iter().map(row).collect()
    }

    /// Returns the line above the table: the compared numbers and the number of prompt pairs.
    pub(super) fn heading(&self, numbers: &NumberArguments) -> String {
        let pairs = if self.prompts == 1 { "pair".to_owned() } else { format!("{} pairs", self.prompts) };
        format!("{} compared with float32, on the first {pairs}, on the scale of the metric", numbers.summary())
    }

    /// Returns the comparison of each table, for `effects.json`.
    pub(super) fn describe(&self) -> Value {
        let table = |table: &Compared| {
            let Compared { nodes, largest, error, median, correlation, .. } = table;
            let described = json!({
                "nodes_with_an_effect": nodes, "largest_effect": largest, "largest_error": error, "median_error": median,
                "pearson": correlation,
            });
            (table.name.clone(), described)
        };
        let tables: serde_json::Map<String, Value> = self.tables.iter().map(table).collect();
        json!({ "prompt_pairs": self.prompts, "unit": "the metric's", "tables": tables })
    }
}
