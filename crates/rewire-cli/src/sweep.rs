//! `cargo xtask sweep`: your own pairs, any kind of node.

mod analyse;
mod intervene;
mod ledger;
mod paths;
mod report;
mod results;
mod shortened;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, ValueEnum};
use rewire_analysis::attribution::{HeadPaths, NormJacobian};
use rewire_analysis::integrated::Completeness;
use rewire_analysis::node::{By, Component, NodeKind, ParseNodeError};
use rewire_analysis::patching::Screened;
use rewire_analysis::run::{Direction, Scale, clean_logits};
use rewire_analysis::{AnalysisError, Outcome};
use rewire_model::{FinalNormGain, Transformer};
use rewire_report::{Labels, describe_baselines};
use rewire_store::{Record, sha256};
use rewire_tasks::{Accuracy, BuiltinMetric, KlDivergence, LogitDiff, Probability, PromptPairs, read_pairs};
use serde::Serialize;
use serde_json::{Value, json};

use crate::arguments::at_least_one;
use crate::compute::NumberArguments;
use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{RESULTS, WaitArguments, announce, print, say, warn};
use crate::publish::{Publication, tell};
use crate::session::Session;
use ledger::SweepLedger;
use rewire_report::Certainty;
use shortened::Shortened;

#[derive(Args)]
pub struct Arguments {
    /// Prompt pairs, one JSON object a line: clean, corrupt, answers, wrong_answers; text or token ids; and, for --by marked,
    /// position.
    #[arg(long, value_name = "FILE.jsonl")]
    pairs: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    numbers: NumberArguments,
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
    /// denoising: the corrupted run is patched from the clean one; noising: the reverse. Of patching, denoising if not given;
    /// ablation, integrated gradients and logit attribution are always of the clean run.
    #[arg(long)]
    direction: Option<Direction>,
    /// What is measured after each prompt.
    #[arg(long, value_enum, default_value = "logit-diff-normalised")]
    metric: MetricName,
    /// For head_paths: differentiate the norm in front of a head whole (exact), or with its scale held (frozen).
    #[arg(long, default_value = "exact")]
    norm: NormJacobian,
    /// By attribution: patch the K nodes of largest attribution exactly, too, and say what was skipped.
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    verify: Option<usize>,
    /// Logit attribution of unprocessed weights: whether contributions are multiplied by the final
    /// norm's gain; left-out gives TransformerLens' numbers, which do not sum to the logits
    /// [default: applied].
    #[arg(long, value_enum)]
    final_norm_gain: Option<GainName>,
    #[command(flatten)]
    paths: paths::PathArguments,
    #[command(flatten)]
    integral: intervene::IntegralArguments,
    #[command(flatten)]
    ablation: intervene::AblationArguments,
    #[command(flatten)]
    means: intervene::MeanArguments,
    /// Keep each prompt's effects apart, on a leading axis.
    #[arg(long)]
    per_prompt: bool,
    /// Write, beside each table of mean effects (but for head_paths), its standard error, its
    /// interval (95% by bootstrap; of fewer than five clusters the range) and its family-wise
    /// p-value. They are over clusters of pairs: a pair, its mirror and their repeats count once.
    #[arg(long, conflicts_with = "per_prompt")]
    intervals: bool,
    /// Seed of the bootstrap and of the sign flips.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Prompt pairs held in memory at once [default: 32 on the CPU, on a GPU as many as there is room for].
    #[arg(long, value_parser = at_least_one)]
    prompt_batch: Option<usize>,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/sweep")]
    out: PathBuf,
    #[command(flatten)]
    wait: WaitArguments,
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
    PathPatching,
    IntegratedGradients,
    Ablation,
    LogitAttribution,
}

impl MethodName {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ByName {
    All,
    Position,
    Cell,
    Marked,
}

#[derive(Clone, Copy, ValueEnum)]
enum GainName {
    Applied,
    LeftOut,
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
    /// What the tables of its effects are called.
    names: Vec<String>,
    /// Of path patching, what each receiver is called that nothing reaches.
    unreached: Vec<String>,
    paths: Option<HeadPaths>,
    screened: Option<Screened>,
    /// Of integrated gradients, one a kind.
    completeness: Vec<Completeness>,
    /// What shorter numbers cost, if any were used.
    shortened: Option<Shortened>,
    /// How sure the effects are, one a kind.
    certainty: Vec<Certainty>,
    /// Warnings, one line each.
    warnings: Vec<String>,
}

impl Findings {
    /// An outcome alone.
    fn of(outcome: Outcome) -> Self {
        let names = outcome.effects.iter().map(|effects| effects.kind.to_string()).collect();
        Self {
            outcome,
            names,
            unreached: Vec::new(),
            paths: None,
            screened: None,
            completeness: Vec::new(),
            shortened: None,
            certainty: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let session = Session::with_numbers(arguments.model.device, arguments.numbers, &arguments.model.memory)?;
    let source = Source::open(&arguments.model)?;
    let (d_vocab, n_ctx) = (source.config.d_vocab, source.config.n_ctx);
    let pairs = read_pairs(&arguments.pairs, source.tokenizer.as_ref(), source.bos(), d_vocab, n_ctx)?;
    let nodes = arguments.kinds()?;
    let reference = arguments.reference(&source, &pairs)?;
    if arguments.intervals {
        check_clusters(&pairs, &arguments.pairs)?;
    }
    let identity = arguments.identity(&session, &source, &pairs, &nodes, &reference)?;
    let directory = arguments.wait.take(&arguments.out, &RESULTS)?;
    let record = Record::open(&directory, &identity)?;
    record.notices().iter().for_each(|notice| say(&format!("warning: {notice}")));
    let ledger = SweepLedger(record);
    if ledger.finished() > 0 {
        print(&format!("going on with an unfinished sweep: {} passes were done before\n", ledger.finished()))?;
    }
    announce(&source)?;
    let found = on_device!(&session, |B, device| {
        let load = || -> anyhow::Result<Transformer<Autodiff<B>>> { Ok(source.load(&device)?) };
        let model = load()?.in_precision(arguments.numbers.dtype);
        let scale = arguments.scale();
        let run = analyse::Run { setup: session.setup(), ledger: &ledger, scale, what: "sweep" };
        let mut found = analyse::analyse(&model, &pairs, &nodes, &reference, arguments, run)?;
        if arguments.numbers.are_short() {
            let setup = session.setup();
            found.shortened = Some(shortened::compare(&load()?, &model, setup, &pairs, &nodes, &reference, arguments)?);
        }
        anyhow::Ok(found)
    });
    let mut found = match found {
        Ok(found) => found,
        Err(error) => {
            let is_of_the_machine = match error.downcast_ref() {
                Some(refused) => matches!(refused, AnalysisError::Device(_) | AnalysisError::Ledger(_)),
                None => true,
            };
            // The same command would be refused again, so nothing needs to be kept.
            if !is_of_the_machine {
                ledger.0.remove()?;
            }
            return Err(error);
        }
    };
    found.warnings = warn(&source, [("", found.outcome.warnings())]);
    let clusters = pairs.clusters();
    found.certainty = found.outcome.effects.iter().map(|e| Certainty::new(e, &clusters, arguments.seed)).collect();

    let publication = Publication {
        tables: results::tables(&found, arguments),
        metric: arguments.metric_name(),
        seed: arguments.seed,
        labels: Labels::Each(&pairs),
        baselines: describe_baselines(&found.outcome.baselines),
        warnings: found.warnings.clone(),
        notes: results::notes(&found, &pairs, &identity, arguments),
        page: report::page(&session, &source, &pairs, &found, arguments),
        files: Vec::new(),
        summary: results::summary(&found, &pairs, arguments),
    };
    let summary = publication.write(&session, &source, &directory)?;
    ledger.0.remove()?;
    tell(&session, &arguments.out, &summary)
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
        let of_clean_run = matches!(
            self.method,
            MethodName::IntegratedGradients | MethodName::Ablation | MethodName::LogitAttribution
        );
        if of_clean_run && self.direction == Some(Direction::Denoising) {
            bail!("--method {} is of the clean run: it has no denoising direction", self.method.name());
        }
        let of_logits = matches!(self.metric, MetricName::LogitDiff | MetricName::LogitDiffNormalised);
        if self.method == MethodName::LogitAttribution && !of_logits {
            bail!("--method logit-attribution is of the logit difference: it has no --metric {}", self.metric.name());
        }
        if self.final_norm_gain.is_some() && self.method != MethodName::LogitAttribution {
            bail!("--final-norm-gain goes with --method logit-attribution");
        }
        self.paths.check(self.method)?;
        self.integral.check(self.method)?;
        self.ablation.check(self.method)?;
        self.means.check(self.wants_mean())?;
        Ok(nodes)
    }

    /// The metric that effects are in: logit attribution is never normalised.
    fn metric_name(&self) -> String {
        match self.method {
            MethodName::LogitAttribution => MetricName::LogitDiff.name(),
            _ => self.metric.name(),
        }
    }

    /// Whether logit attribution multiplies by the final norm's gain.
    fn final_norm_gain(&self) -> FinalNormGain {
        match self.final_norm_gain {
            None | Some(GainName::Applied) => FinalNormGain::Applied,
            Some(GainName::LeftOut) => FinalNormGain::LeftOut,
        }
    }

    /// The unit of effects.
    fn scale(&self) -> Scale {
        match self.metric {
            MetricName::LogitDiffNormalised => Scale::Normalised,
            _ => Scale::Metric,
        }
    }

    fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::Denoising)
    }

    /// Whether something is replaced by its mean.
    fn wants_mean(&self) -> bool {
        self.integral.wants_mean() || self.ablation.wants_mean()
    }

    /// The prompts that means are over: those of `--reference`, or the clean ones of the pairs; none if no mean is wanted.
    fn reference(&self, source: &Source, pairs: &PromptPairs) -> anyhow::Result<Vec<Vec<u32>>> {
        let clean = |pairs: &PromptPairs| pairs.pairs().iter().map(|p| p.clean.clone()).collect();
        match &self.means.reference {
            _ if !self.wants_mean() => Ok(Vec::new()),
            None => Ok(clean(pairs)),
            Some(path) => {
                let (d_vocab, n_ctx) = (source.config.d_vocab, source.config.n_ctx);
                let read = read_pairs(path, source.tokenizer.as_ref(), source.bos(), d_vocab, n_ctx);
                Ok(clean(&read.context("the reference set cannot be used")?))
            }
        }
    }

    fn wants_paths(&self) -> bool {
        self.nodes.contains(&NodeName::HeadPaths)
    }

    /// Everything that a pass of the sweep depends on.
    fn identity(
        &self,
        session: &Session,
        source: &Source,
        pairs: &PromptPairs,
        nodes: &[NodeKind],
        reference: &[Vec<u32>],
    ) -> anyhow::Result<Value> {
        let prompts: Vec<_> =
            pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": source.files.checksums()?,
            "processed weights": source.is_processed(),
            "device": session.device().to_string(),
            "pairs": { "number": pairs.len(), "sha256": hash(&prompts)? },
            "positions": hash(&pairs.marks())?,
            "nodes": nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "method": self.method.name(),
            "paths": self.paths.describe(),
            "line": self.integral.describe(&self.numbers)?,
            "ablation": self.ablation.describe(),
            "mean over": self.means.describe(),
            "reference": hash(&reference)?,
            "norm": self.norm,
            "final norm gain": format!("{:?}", self.final_norm_gain()),
            "prompts kept apart": self.per_prompt,
            "head paths": self.wants_paths(),
            "verified": self.verify,
            "direction": self.direction(),
            "metric": self.metric.name(),
            "prompt batch": self.prompt_batch,
            "numbers": self.numbers.describe(),
        }))
    }
}

/// Refuses pairs, which were read from `path`, that are no two clusters.
fn check_clusters(pairs: &PromptPairs, path: &Path) -> anyhow::Result<()> {
    match (pairs.len(), pairs.clusters().len()) {
        (1, _) => anyhow::bail!("--intervals needs several prompt pairs, and there is one"),
        (n, 1) => anyhow::bail!(
            "--intervals needs pairs that are independent: all {n} in {} are the same two prompts, in either order",
            path.display()
        ),
        _ => Ok(()),
    }
}

/// SHA-256 of what may be long, in the identity of a sweep.
fn hash(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(sha256(&serde_json::to_vec(value)?))
}
