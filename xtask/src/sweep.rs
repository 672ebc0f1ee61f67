//! `cargo xtask sweep`: your own pairs, any kind of node.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, ValueEnum};
use ndarray::{Axis, Dimension, Ix2};
use rewire_analysis::{
    By, Component, Direction, Effects, Method, NodeKind, Options, Outcome, Scale, activation_patching,
    attribution_patching, clean_logits,
};
use rewire_model::Transformer;
use rewire_report::charts::{self, HeatMapLabels};
use rewire_report::{About, Page, Prompts, Table, check_directory, describe_baselines, write_tables, write_whole};
use rewire_tasks::{Accuracy, BuiltinMetric, KlDivergence, LogitDiff, Probability, PromptPairs, read_pairs};

use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{about, numbered, print, text_table, token_labels};
use crate::progress::with_bar;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Prompt pairs, one JSON object a line: clean, corrupt, answers, wrong_answers; text or token ids.
    #[arg(long, value_name = "FILE.jsonl")]
    pairs: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    /// How effects are found.
    #[arg(long, value_enum, default_value = "activation-patching")]
    method: MethodName,
    /// Kinds of nodes: resid_pre resid_mid resid_post attn_out mlp_out head_q head_k head_v head_z head_result head_pattern
    /// mlp_post.
    #[arg(long, value_delimiter = ',', default_value = "head_z")]
    nodes: Vec<Component>,
    /// How finely they are divided (cell: attention patterns alone).
    #[arg(long, value_enum, default_value = "all")]
    by: ByName,
    /// denoising: the corrupted run is patched from the clean one; noising: the reverse.
    #[arg(long, default_value = "denoising")]
    direction: Direction,
    /// What is measured after each prompt.
    #[arg(long, value_enum, default_value = "logit-diff-normalised")]
    metric: MetricName,
    /// Keep each prompt's effects apart, on a leading axis.
    #[arg(long)]
    per_prompt: bool,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/sweep")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodName {
    ActivationPatching,
    AttributionPatching,
}

#[derive(Clone, Copy, ValueEnum)]
enum ByName {
    All,
    Position,
    Cell,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum MetricName {
    LogitDiffNormalised,
    LogitDiff,
    Probability,
    Kl,
    Accuracy,
}

impl MetricName {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The metric, for these pairs; `kl` is against the clean run.
    fn metric<B: AutodiffBackend>(self, model: &Transformer<B>, pairs: &PromptPairs) -> anyhow::Result<BuiltinMetric> {
        Ok(match self {
            MetricName::LogitDiffNormalised | MetricName::LogitDiff => BuiltinMetric::LogitDiff(LogitDiff::new(pairs)),
            MetricName::Probability => BuiltinMetric::Probability(Probability::new(pairs)),
            MetricName::Accuracy => BuiltinMetric::Accuracy(Accuracy::new(pairs)),
            MetricName::Kl => {
                let reference = clean_logits(&model.valid(), pairs, Options::default().prompt_batch)?;
                BuiltinMetric::KlDivergence(KlDivergence::new(pairs, &reference))
            }
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let source = Source::open(&arguments.model)?;
    let (d_vocab, n_ctx) = (source.config.d_vocab, source.config.n_ctx);
    let pairs = read_pairs(&arguments.pairs, source.tokenizer.as_ref(), source.config.bos_token, d_vocab, n_ctx)?;
    let by = match arguments.by {
        ByName::All => By::All,
        ByName::Position => By::Position,
        ByName::Cell => By::Cell,
    };
    let mut nodes: Vec<NodeKind> = Vec::new();
    for &component in &arguments.nodes {
        let kind = NodeKind { component, by };
        if nodes.contains(&kind) {
            bail!("--nodes names {component} twice");
        }
        nodes.push(kind);
    }
    check_directory(&arguments.out)?;
    let outcome = on_device!(arguments.model.device, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        analyse(&model, &pairs, &nodes, arguments)
    })?;

    let prompts = if arguments.per_prompt { Prompts::Each } else { Prompts::Mean };
    let table = |effects: &Effects| Table::new(effects.kind.to_string(), effects, prompts, &outcome);
    let tables: Vec<Table> = outcome.effects.iter().map(table).collect();
    let labels = (0..pairs.len()).map(|p| pairs.labels(p).to_vec()).collect::<Vec<_>>();
    let about = About {
        metric: arguments.metric.name(),
        labels: serde_json::json!(labels),
        baselines: describe_baselines(&outcome.baselines),
        ..about(&source, arguments.model.device, started)
    };
    write_tables(&arguments.out, &tables, &about)?;
    write_whole(&arguments.out.join("report.html"), report(&source, &pairs, &outcome, arguments).render().as_bytes())?;
    summarise(&outcome, arguments, started);
    Ok(())
}

fn analyse<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
    arguments: &Arguments,
) -> anyhow::Result<Outcome> {
    let metric = arguments.metric.metric(model, pairs)?;
    let scale = match arguments.metric {
        MetricName::LogitDiffNormalised => Scale::Normalised,
        _ => Scale::Metric,
    };
    Ok(with_bar("sweep", |progress| {
        let options = Options { direction: arguments.direction, scale, progress, ..Options::default() };
        match arguments.method {
            MethodName::ActivationPatching => activation_patching(&model.valid(), pairs, &metric, nodes, &options),
            MethodName::AttributionPatching => attribution_patching(model, pairs, &metric, nodes, &options),
        }
    })?)
}

/// The names along one axis of a kind's effects.
fn names(axis: &str, n: usize, pairs: &PromptPairs) -> Vec<String> {
    match axis {
        "layer" => numbered("L", n),
        "head" => numbered("H", n),
        "neuron" => numbered("N", n),
        // Positions carry the tokens of the first prompt only where all have its length.
        _ if pairs.labels(0).len() == n => token_labels(pairs.labels(0)),
        _ => numbered("", n),
    }
}

fn report(source: &Source, pairs: &PromptPairs, outcome: &Outcome, arguments: &Arguments) -> Page {
    let subtitle = format!(
        "{} · {} · pairs: {} · {} · {}",
        source.name,
        outcome.method,
        pairs.len(),
        outcome.direction,
        arguments.metric.name()
    );
    let mut page = Page::new("Sweep", &subtitle);
    let [clean, corrupted] = outcome.baselines.means();
    page.section("Baselines", "The metric of the unpatched runs, mean over prompts.");
    let row = |name: &str, value: f64| vec![name.to_owned(), format!("{value:.4}")];
    page.table(&["run", outcome.metric], vec![row("clean", clean), row("corrupted", corrupted)]);
    for effects in &outcome.effects {
        let unit = match outcome.scale {
            Scale::Normalised => "Mean over prompts, as a share of clean less corrupted.",
            Scale::Metric => "Mean over prompts, as a change of the metric.",
        };
        page.section(&effects.kind.to_string(), unit);
        let mean = effects.mean();
        let axes = effects.axis_names();
        let (rows, columns) = (axes[1], axes.last().copied().unwrap_or("layer"));
        let shape = mean.shape().to_vec();
        let row_names = names(rows, shape[0], pairs);
        // One map of [layer, last axis] a unit between them; one row where there is but the layer axis.
        let maps: Vec<(String, ndarray::Array2<f32>)> = match shape.len() {
            1 => mean.into_shape_with_order((shape[0], 1)).into_iter().map(|m| (effects.kind.to_string(), m)).collect(),
            2 => mean.into_dimensionality::<Ix2>().into_iter().map(|m| (effects.kind.to_string(), m)).collect(),
            3 if axes[2] == "head" => (0..shape[1])
                .filter_map(|h| mean.index_axis(Axis(1), h).to_owned().into_dimensionality::<Ix2>().ok())
                .enumerate()
                .map(|(h, m)| (format!("head {h}"), m))
                .collect(),
            _ => Vec::new(),
        };
        if maps.is_empty() || shape.len() == 2 && shape[1] > 512 {
            page.text("Too many nodes for a heat map: see effects.safetensors or effects.csv.");
            page.table(&["node", "effect"], top_nodes(effects, 30));
            continue;
        }
        let reach = charts::reach(maps.iter().map(|(_, map)| map.view()));
        for (title, map) in maps {
            let columns_named = if shape.len() == 1 { vec![String::new()] } else { names(columns, map.ncols(), pairs) };
            let columns = if shape.len() == 1 { "" } else { columns };
            let labels = HeatMapLabels { rows: (rows, &row_names), columns: (columns, &columns_named), reach };
            page.chart(charts::heat_map(&title, &map.view(), labels));
        }
    }
    page
}

/// The nodes of largest mean effect, by name.
fn top_nodes(effects: &Effects, n: usize) -> Vec<Vec<String>> {
    let axes = effects.axis_names();
    let mean = effects.mean();
    let mut nodes: Vec<(Vec<usize>, f32)> = mean.indexed_iter().map(|(i, v)| (i.slice().to_vec(), *v)).collect();
    nodes.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let name = |place: &[usize]| {
        axes[1..].iter().zip(place).map(|(axis, i)| format!("{axis} {i}")).collect::<Vec<_>>().join(", ")
    };
    nodes.iter().take(n).map(|(place, value)| vec![name(place), format!("{value:.4}")]).collect()
}

fn summarise(outcome: &Outcome, arguments: &Arguments, started: Instant) {
    let [clean, corrupted] = outcome.baselines.means();
    let method = match outcome.method {
        Method::ActivationPatching => "exact",
        Method::AttributionPatching => "estimated",
    };
    let mut text = format!("{}: clean {clean:.4}, corrupted {corrupted:.4}\n", outcome.metric);
    for effects in &outcome.effects {
        text += &format!("{} ({method}, {})\n", effects.kind, outcome.direction);
        text += &text_table(&["node", "effect"], &top_nodes(effects, 5));
    }
    let report = arguments.out.join("report.html");
    print(&format!("{text}{:.1} s; report: {}\n", started.elapsed().as_secs_f64(), report.display()));
}
