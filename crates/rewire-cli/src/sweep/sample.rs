//! Compares the sweep of a few prompts in shorter numbers with the same sweep in float32.

use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::run::Scale;
use rewire_analysis::stats::pearson;
use rewire_model::Transformer;
use rewire_studies::Setup;
use rewire_tensor::{MatmulPrecision, set_matmul_precision};

use super::analyze::{Run, analyze};
use super::arguments::Arguments;
use super::findings::Findings;
use super::inputs::Inputs;
use super::shortened::{Compared, Shortened};
use crate::shards::Counted;

/// Most prompt pairs of the sample.
const MOST: usize = 4;

/// Runs the sweep of the first prompt pairs twice, and compares the effects: with `short`, the
/// model of the sweep, and with `full`, the same model in float32. The sample is an eighth of the
/// pairs, at most [`MOST`].
pub(super) fn compare<B: AutodiffBackend>(
    full: &Transformer<B>,
    short: &Transformer<B>,
    setup: Setup,
    inputs: Inputs,
    arguments: &Arguments,
) -> anyhow::Result<Shortened> {
    let pairs = inputs.pairs;
    let Some(sample) = pairs.batches(pairs.len().div_ceil(8).min(MOST)).next() else {
        anyhow::bail!("there are no prompt pairs to compare on; add pairs to --pairs")
    };
    let inputs = Inputs { pairs: &sample, ..inputs };
    let run = |model, what| {
        analyze(
            model,
            inputs,
            arguments,
            Run { setup, checkpoint: &(), scale: Scale::Metric, what, counted: Counted::Patches },
        )
    };
    let in_short = run(short, "sample in shorter numbers")?;
    set_matmul_precision(MatmulPrecision::Float32);
    let in_full = run(full, "sample in float32");
    set_matmul_precision(arguments.numbers.products());
    Ok(Shortened { prompts: sample.len(), tables: tables(&in_full?, &in_short) })
}

/// Compares the mean effects of each table.
fn tables(full: &Findings, short: &Findings) -> Vec<Compared> {
    let of_nodes = full.names.iter().zip(full.outcome.effects.iter().zip(&short.outcome.effects));
    let of_nodes = of_nodes.map(|(name, (full, short))| (name.clone(), full.mean(), short.mean()));
    let of_paths = full.paths.iter().zip(&short.paths);
    let of_paths =
        of_paths.map(|(full, short)| ("head_edges".to_owned(), full.mean().into_dyn(), short.mean().into_dyn()));
    let of_edges = full.edges.iter().zip(&short.edges);
    let of_edges = of_edges.map(|(full, short)| ("edges".to_owned(), full.mean().into_dyn(), short.mean().into_dyn()));
    let of_chosen = full.chosen.iter().zip(&short.chosen);
    let of_chosen = of_chosen
        .map(|(full, short)| ("edges".to_owned(), full.found.mean().into_dyn(), short.found.mean().into_dyn()));
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
    of_nodes.chain(of_paths).chain(of_edges).chain(of_chosen).map(compare).collect()
}
