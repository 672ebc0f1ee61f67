//! `cargo xtask sweep`: your own pairs, any kind of node.

mod ledger;
mod report;
mod results;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::bail;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, ValueEnum};
use rewire_analysis::{
    Bootstrap, By, Component, Direction, HeadPaths, Method, NodeKind, NormJacobian, Options, Outcome, ParseNodeError,
    PathOptions, PerPrompt, Scale, Screened, activation_patching, attribution_patching,
    attribution_patching_with_head_paths, clean_logits, head_path_attribution, screen_then_verify,
};
use rewire_model::Transformer;
use rewire_report::{About, check_directory, describe_baselines, write_tables, write_whole};
use rewire_tasks::{Accuracy, BuiltinMetric, KlDivergence, LogitDiff, Probability, PromptPairs, read_pairs};
use serde_json::{Map, Value, json};

use crate::arguments::at_least_one;
use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{about, print};
use crate::progress::with_bar;
use ledger::SweepLedger;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Prompt pairs, one JSON object a line: clean, corrupt, answers, wrong_answers; text or token ids; and, for --by marked,
    /// position.
    #[arg(long, value_name = "FILE.jsonl")]
    pairs: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    /// How effects are found.
    #[arg(long, value_enum, default_value = "activation-patching")]
    method: MethodName,
    /// Kinds of nodes: resid_pre resid_mid resid_post attn_out mlp_out head_q head_k head_v head_z head_result head_pattern
    /// mlp_post; and head_paths, by attribution alone.
    #[arg(long, value_delimiter = ',', default_value = "head_z")]
    nodes: Vec<NodeName>,
    /// How finely they are divided (cell: attention patterns alone; marked: at the position that each line of the pairs gives).
    #[arg(long, value_enum, default_value = "all")]
    by: ByName,
    /// denoising: the corrupted run is patched from the clean one; noising: the reverse.
    #[arg(long, default_value = "denoising")]
    direction: Direction,
    /// What is measured after each prompt.
    #[arg(long, value_enum, default_value = "logit-diff-normalised")]
    metric: MetricName,
    /// For head_paths: differentiate the norm in front of a head whole (exact), or with its scale held (frozen).
    #[arg(long, default_value = "exact")]
    norm: NormJacobian,
    /// By attribution: patch the K nodes of largest attribution exactly, too, and say what was skipped.
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    verify: Option<usize>,
    /// Keep each prompt's effects apart, on a leading axis.
    #[arg(long)]
    per_prompt: bool,
    /// Write, beside each table of mean effects (but for head_paths), its standard error and 95% bootstrap interval over prompts.
    #[arg(long, conflicts_with = "per_prompt")]
    intervals: bool,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Prompt pairs held in memory at once.
    #[arg(long, default_value_t = Options::default().prompt_batch, value_parser = at_least_one)]
    prompt_batch: usize,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/sweep")]
    out: PathBuf,
}

/// A kind of node, as `--nodes` names it.
#[derive(Clone, Copy, PartialEq)]
enum NodeName {
    Component(Component),
    HeadPaths,
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "head_paths" => Ok(NodeName::HeadPaths),
            "" => Err("the list of nodes is empty".to_owned()),
            other => {
                let component = other.parse().map_err(|e: ParseNodeError| format!("{e}, head_paths"))?;
                Ok(NodeName::Component(component))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum MethodName {
    ActivationPatching,
    AttributionPatching,
}

#[derive(Clone, Copy, ValueEnum)]
enum ByName {
    All,
    Position,
    Cell,
    Marked,
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
    fn metric<B: AutodiffBackend>(
        self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        prompt_batch: usize,
    ) -> anyhow::Result<BuiltinMetric> {
        Ok(match self {
            MetricName::LogitDiffNormalised | MetricName::LogitDiff => BuiltinMetric::LogitDiff(LogitDiff::new(pairs)),
            MetricName::Probability => BuiltinMetric::Probability(Probability::new(pairs)),
            MetricName::Accuracy => BuiltinMetric::Accuracy(Accuracy::new(pairs)),
            MetricName::Kl => {
                let reference = clean_logits(&model.valid(), pairs, prompt_batch)?;
                BuiltinMetric::KlDivergence(KlDivergence::new(pairs, &reference))
            }
        })
    }
}

/// What a sweep finds.
struct Findings {
    outcome: Outcome,
    paths: Option<HeadPaths>,
    screened: Option<Screened>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let source = Source::open(&arguments.model)?;
    let (d_vocab, n_ctx) = (source.config.d_vocab, source.config.n_ctx);
    let pairs = read_pairs(&arguments.pairs, source.tokenizer.as_ref(), source.config.bos_token, d_vocab, n_ctx)?;
    let nodes = arguments.kinds()?;
    if arguments.intervals && pairs.len() < 2 {
        bail!("--intervals needs several prompt pairs, and there is one");
    }
    check_directory(&arguments.out)?;
    let ledger = SweepLedger::open(&arguments.out, &arguments.identity(&source, &pairs, &nodes)?)?;
    if ledger.finished() > 0 {
        print(&format!("going on with an unfinished sweep: {} passes were done before\n", ledger.finished()));
    }
    let found = on_device!(arguments.model.device, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        analyse(&model, &pairs, &nodes, arguments, &ledger)
    })?;

    let bootstrap = Bootstrap { seed: arguments.seed, ..Bootstrap::default() };
    let labels = (0..pairs.len()).map(|p| pairs.labels(p).to_vec()).collect::<Vec<_>>();
    let about = About {
        metric: arguments.metric.name(),
        seed: Some(arguments.seed),
        labels: json!(labels),
        baselines: describe_baselines(&found.outcome.baselines),
        notes: results::notes(&found, &pairs, bootstrap, arguments),
        ..about(&source, arguments.model.device, started)
    };
    write_tables(&arguments.out, &results::tables(&found, bootstrap, arguments), &about)?;
    let page = report::page(&source, &pairs, &found, bootstrap, arguments);
    write_whole(&arguments.out.join("report.html"), page.render().as_bytes())?;
    ledger.close()?;
    let report = arguments.out.join("report.html");
    print(&results::summary(&found, &pairs, bootstrap));
    print(&format!("{:.1} s; report: {}\n", started.elapsed().as_secs_f64(), report.display()));
    Ok(())
}

impl Arguments {
    /// The kinds of nodes that are patched, head paths aside.
    fn kinds(&self) -> anyhow::Result<Vec<NodeKind>> {
        let by = match self.by {
            ByName::All => By::All,
            ByName::Position => By::Position,
            ByName::Cell => By::Cell,
            ByName::Marked => By::Marked,
        };
        let mut nodes: Vec<NodeKind> = Vec::new();
        for (i, name) in self.nodes.iter().enumerate() {
            if self.nodes[..i].contains(name) {
                let name = match name {
                    NodeName::Component(component) => component.to_string(),
                    NodeName::HeadPaths => "head_paths".to_owned(),
                };
                bail!("--nodes names {name} twice");
            }
            if let NodeName::Component(component) = *name {
                nodes.push(NodeKind { component, by });
            }
        }
        if self.wants_paths() && self.method != MethodName::AttributionPatching {
            bail!("head_paths are estimated by --method attribution-patching alone");
        }
        if self.verify.is_some() && self.method != MethodName::AttributionPatching {
            bail!("--verify patches what attribution ranks first: it goes with --method attribution-patching");
        }
        if self.verify.is_some() && nodes.is_empty() {
            bail!("--verify has nothing to patch: head_paths are not nodes");
        }
        Ok(nodes)
    }

    fn wants_paths(&self) -> bool {
        self.nodes.contains(&NodeName::HeadPaths)
    }

    /// Everything that a pass of the sweep depends on.
    fn identity(&self, source: &Source, pairs: &PromptPairs, nodes: &[NodeKind]) -> anyhow::Result<Map<String, Value>> {
        let prompts: Vec<_> =
            pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
        let identity = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": source.files.checksums()?,
            "processed weights": source.is_processed(),
            "device": self.model.device.resolve().to_string(),
            "pairs": prompts,
            "positions": pairs.marks(),
            "nodes": nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "method": self.method.to_possible_value().map(|v| v.get_name().to_owned()),
            "norm": self.norm,
            "prompts kept apart": self.per_prompt,
            "head paths": self.wants_paths(),
            "verified": self.verify,
            "direction": self.direction,
            "metric": self.metric.name(),
            "prompt batch": self.prompt_batch,
        });
        match identity {
            Value::Object(identity) => Ok(identity),
            _ => bail!("a sweep without identity"),
        }
    }
}

fn analyse<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
    arguments: &Arguments,
    ledger: &SweepLedger,
) -> anyhow::Result<Findings> {
    let metric = arguments.metric.metric(model, pairs, arguments.prompt_batch)?;
    let scale = match arguments.metric {
        MetricName::LogitDiffNormalised => Scale::Normalised,
        _ => Scale::Metric,
    };
    let per_prompt = if arguments.per_prompt { PerPrompt::Keep } else { PerPrompt::Mean };
    let paths = arguments.wants_paths().then_some(PathOptions { norm: arguments.norm, per_prompt });
    with_bar("sweep", |progress| {
        let prompt_batch = arguments.prompt_batch;
        let direction = arguments.direction;
        let options = Options { direction, scale, progress, prompt_batch, ledger, ..Options::default() };
        let only = |outcome| Findings { outcome, paths: None, screened: None };
        Ok(match (arguments.method, paths, arguments.verify) {
            (MethodName::ActivationPatching, ..) => {
                only(activation_patching(&model.valid(), pairs, &metric, nodes, &options)?)
            }
            (_, None, None) => only(attribution_patching(model, pairs, &metric, nodes, &options)?),
            (_, None, Some(k)) => {
                let screened = screen_then_verify(model, pairs, &metric, nodes, k, &options)?;
                Findings { screened: Some(screened.clone()), ..only(screened.attribution) }
            }
            (_, Some(paths), None) if nodes.is_empty() => {
                let paths = head_path_attribution(model, pairs, &metric, paths, &options)?;
                let outcome = Outcome {
                    method: Method::AttributionPatching,
                    direction: options.direction,
                    scale,
                    metric: rewire_tasks::Metric::name(&metric),
                    baselines: paths.baselines.clone(),
                    effects: Vec::new(),
                };
                Findings { paths: Some(paths), ..only(outcome) }
            }
            (_, Some(paths), verify) => {
                let (outcome, paths) =
                    attribution_patching_with_head_paths(model, pairs, &metric, nodes, paths, &options)?;
                let screened = match verify {
                    Some(k) => Some(screen_then_verify(model, pairs, &metric, nodes, k, &options)?),
                    None => None,
                };
                Findings { outcome, paths: Some(paths), screened }
            }
        })
    })
}
