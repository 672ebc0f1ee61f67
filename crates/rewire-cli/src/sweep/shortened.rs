//! What numbers shorter than float32 cost: the largest and the median error of each table.

use serde_json::{Value, json};

use crate::compute::NumberArguments;

/// One table of the sample, in float32 and in the numbers of the sweep.
pub(super) struct Compared {
    pub(super) name: String,
    /// How many nodes have an effect in float32.
    pub(super) nodes: usize,
    /// The largest effect in float32, by size, in the metric's unit.
    pub(super) largest: f32,
    /// The largest difference.
    pub(super) error: f32,
    /// The difference that half of the nodes are under.
    pub(super) median: f32,
    /// Of all effects with those in float32.
    pub(super) correlation: Option<f64>,
}

/// What shorter numbers cost on a sample of prompts.
pub(super) struct Shortened {
    /// How many prompt pairs the sample has, the first of the sweep's.
    pub(super) prompts: usize,
    pub(super) tables: Vec<Compared>,
}

/// Header of [`Shortened::rows`].
pub(super) const HEADER: [&str; 6] =
    ["kind", "nodes with an effect", "largest effect in float32", "largest error", "median error", "Pearson"];

impl Shortened {
    /// A row for each table.
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

    /// Which numbers are compared, and on how many prompt pairs.
    pub(super) fn heading(&self, numbers: &NumberArguments) -> String {
        let pairs = if self.prompts == 1 { "pair".to_owned() } else { format!("{} pairs", self.prompts) };
        format!("{} against float32, on the first {pairs}, in the metric's unit", numbers.told())
    }

    /// The same as [`Shortened::rows`], for effects.json.
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
