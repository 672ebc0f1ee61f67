//! What shorter numbers cost: the same sweep of a few prompts in them and in float32.

use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::node::NodeKind;
use rewire_analysis::run::Scale;
use rewire_analysis::stats::pearson;
use rewire_model::Transformer;
use rewire_studies::Setup;
use rewire_tasks::PromptPairs;
use rewire_tensor::{Products, set_products};
use serde_json::{Value, json};

use super::analyse::{Run, analyse};
use super::{Arguments, Findings};

/// Most prompt pairs of the sample.
const MOST: usize = 4;

/// One table of the sample, in float32 and in the numbers of the sweep.
pub(super) struct Compared {
    name: String,
    /// How many nodes have an effect in float32.
    nodes: usize,
    /// The largest effect in float32, by size, in the metric's unit.
    largest: f32,
    /// The largest difference.
    error: f32,
    /// The difference that half of the nodes are under.
    median: f32,
    /// Of all effects with those in float32.
    correlation: Option<f64>,
}

/// What shorter numbers cost on a sample of prompts.
pub(super) struct Shortened {
    /// How many prompt pairs the sample has, the first of the sweep's.
    pub(super) prompts: usize,
    pub(super) tables: Vec<Compared>,
}

/// Does the sweep of the first prompt pairs twice: with `short`, the sweep's own model, and with the same model in float32.
pub(super) fn compare<B: AutodiffBackend>(
    full: &Transformer<B>,
    short: &Transformer<B>,
    setup: Setup,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
    reference: &[Vec<u32>],
    arguments: &Arguments,
) -> anyhow::Result<Shortened> {
    let Some(sample) = pairs.batches(pairs.len().div_ceil(8).min(MOST)).next() else {
        anyhow::bail!("there are no pairs to compare on")
    };
    let run = |model, what| {
        analyse(model, &sample, nodes, reference, arguments, Run { setup, ledger: &(), scale: Scale::Metric, what })
    };
    let in_short = run(short, "a sample again")?;
    set_products(Products::Float32);
    let in_full = run(full, "the sample in float32");
    set_products(arguments.numbers.products());
    Ok(Shortened { prompts: sample.len(), tables: tables(&in_full?, &in_short) })
}

fn tables(full: &Findings, short: &Findings) -> Vec<Compared> {
    let of_nodes = full.names.iter().zip(full.outcome.effects.iter().zip(&short.outcome.effects));
    let of_nodes = of_nodes.map(|(name, (full, short))| (name.clone(), full.mean(), short.mean()));
    let of_paths = full.paths.iter().zip(&short.paths);
    let of_paths =
        of_paths.map(|(full, short)| ("head_paths".to_owned(), full.mean().into_dyn(), short.mean().into_dyn()));
    let compare = |(name, full, short): (String, ndarray::ArrayD<f32>, ndarray::ArrayD<f32>)| {
        let pairs: Vec<(f32, f32)> =
            full.iter().copied().zip(short.iter().copied()).filter(|(f, s)| *f != 0.0 || *s != 0.0).collect();
        let mut errors: Vec<f32> = pairs.iter().map(|(full, short)| (full - short).abs()).collect();
        errors.sort_by(f32::total_cmp);
        Compared {
            name,
            nodes: pairs.len(),
            largest: pairs.iter().fold(0.0, |m, (full, _)| m.max(full.abs())),
            error: errors.last().copied().unwrap_or(0.0),
            median: errors.get(errors.len() / 2).copied().unwrap_or(0.0),
            correlation: pearson(pairs),
        }
    };
    of_nodes.chain(of_paths).map(compare).collect()
}

pub(super) const HEADER: [&str; 6] =
    ["kind", "nodes with an effect", "largest effect in float32", "largest error", "median error", "Pearson"];

impl Shortened {
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

    pub(super) fn told(&self, arguments: &Arguments) -> String {
        let pairs = if self.prompts == 1 { "pair".to_owned() } else { format!("{} pairs", self.prompts) };
        format!("{} against float32, on the first {pairs}, in the metric's unit", arguments.numbers.told())
    }

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
