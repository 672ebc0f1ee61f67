//! Agreement between attribution and exact effects, as a table.

use rewire_analysis::stats::Agreement;
use serde_json::{Value, json};

/// Number of largest exact effects that attribution should find.
pub const TOP_K: usize = 10;

/// The header of [`rows`].
pub const HEADER: [&str; 7] = ["nodes", "compared", "Pearson", "Spearman", "slope", "R2", "top 10"];

/// Returns table rows, one per kind of node.
#[must_use]
pub fn rows(agreements: &[Agreement]) -> Vec<Vec<String>> {
    let number = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.3}"));
    let row = |a: &Agreement| {
        vec![
            a.kind.to_string(),
            format!("{} of {}", a.compared, a.nodes),
            number(a.pearson),
            number(a.spearman),
            number(a.slope),
            number(a.r_squared),
            // With at most `top_k` nodes, the largest are all nodes.
            if a.compared > a.top_k { format!("{} of {}", a.top_k_overlap, a.top_k) } else { "-".to_owned() },
        ]
    };
    agreements.iter().map(row).collect()
}

/// Returns the agreement for `effects.json`.
#[must_use]
pub fn describe(agreements: &[Agreement]) -> Value {
    let describe = |a: &Agreement| {
        json!({
            "kind": a.kind.to_string(), "nodes": a.nodes, "compared": a.compared, "pearson": a.pearson,
            "spearman": a.spearman, "slope": a.slope, "r_squared": a.r_squared, "top_k": a.top_k,
            "top_k_overlap": a.top_k_overlap,
        })
    };
    agreements.iter().map(describe).collect()
}
