//! The arguments of `sweep`, and which of them go together.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use rewire_analysis::attribution::NormJacobian;
use rewire_analysis::node::{By, NodeKind};
use rewire_analysis::run::{Direction, Scale};
use rewire_model::FinalNormGain;
use rewire_tasks::{PromptPairs, read_pairs};

use super::choices::{ByName, GainName, MethodName, MetricName, NodeName};
use super::intervene::{AblationArguments, IntegralArguments, MeanArguments};
use super::paths::PathArguments;
use crate::arguments::at_least_one;
use crate::compute::NumberArguments;
use crate::model::{ModelArguments, Source};
use crate::output::WaitArguments;

#[derive(Args)]
pub struct Arguments {
    /// Prompt pairs, one JSON object a line: clean, corrupt, answers, wrong_answers; text or token
    /// ids; and, for --by marked, position.
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) pairs: PathBuf,
    #[command(flatten)]
    pub(super) model: ModelArguments,
    #[command(flatten)]
    pub(super) numbers: NumberArguments,
    /// How effects are found.
    #[arg(long, value_enum, default_value = "activation-patching")]
    pub(super) method: MethodName,
    /// Kinds of nodes: resid_pre resid_mid resid_post attn_out mlp_out head_q head_k head_v head_z
    /// head_result head_pattern mlp_post; and head_edges, by attribution alone.
    #[arg(long, value_delimiter = ',', default_value = "head_z")]
    pub(super) nodes: Vec<NodeName>,
    /// How finely they are divided (cell: attention patterns alone; marked: at the position that
    /// each line of the pairs gives).
    #[arg(long, value_enum, default_value = "all")]
    pub(super) by: ByName,
    /// denoising: the corrupted run is patched from the clean one; noising: the reverse. Of
    /// patching, denoising if not given; ablation, integrated gradients and logit attribution are
    /// always of the clean run.
    #[arg(long)]
    pub(super) direction: Option<Direction>,
    /// What is measured after each prompt.
    #[arg(long, value_enum, default_value = "logit-diff-normalized")]
    pub(super) metric: MetricName,
    /// For head_edges: differentiate the norm in front of a head whole (exact), or with its scale
    /// held (frozen).
    #[arg(long, default_value = "exact")]
    pub(super) norm: NormJacobian,
    /// By attribution: patch the K nodes of largest attribution exactly, too, and say what was
    /// skipped.
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub(super) verify: Option<usize>,
    /// Logit attribution of unprocessed weights: whether contributions are multiplied by the final
    /// norm's gain; left-out gives TransformerLens' numbers, which do not sum to the logits
    /// [default: applied].
    #[arg(long, value_enum)]
    pub(super) final_norm_gain: Option<GainName>,
    #[command(flatten)]
    pub(super) paths: PathArguments,
    #[command(flatten)]
    pub(super) integral: IntegralArguments,
    #[command(flatten)]
    pub(super) ablation: AblationArguments,
    #[command(flatten)]
    pub(super) means: MeanArguments,
    /// Keep each prompt's effects apart, on a leading axis.
    #[arg(long)]
    pub(super) per_prompt: bool,
    /// Write, beside each table of mean effects (but for head_edges), its standard error, its
    /// interval (95% by bootstrap; of fewer than five clusters the range) and its family-wise
    /// p-value. They are over clusters of pairs: a pair, its mirror and their repeats count once.
    #[arg(long, conflicts_with = "per_prompt")]
    pub(super) intervals: bool,
    /// Seed of the bootstrap and of the sign flips.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Prompt pairs held in memory at once [default: 32 on the CPU, on a GPU as many as there is
    /// room for].
    #[arg(long, value_parser = at_least_one)]
    pub(super) prompt_batch: Option<usize>,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/sweep")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) wait: WaitArguments,
}

impl Arguments {
    /// Returns the kinds of nodes that are patched, head edges aside.
    ///
    /// # Errors
    /// If a kind is named twice, or a flag does not go with the method.
    pub(super) fn kinds(&self) -> anyhow::Result<Vec<NodeKind>> {
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
                    NodeName::HeadEdges => "head_edges".to_owned(),
                };
                bail!("--nodes names {name} twice");
            }
            if let NodeName::Component(component) = *name {
                nodes.push(NodeKind { component, by });
            }
        }
        self.check(&nodes)?;
        Ok(nodes)
    }

    /// Refuses flags that do not go with the method, or with these kinds of nodes.
    fn check(&self, nodes: &[NodeKind]) -> anyhow::Result<()> {
        if self.wants_paths() && self.method != MethodName::AttributionPatching {
            bail!("head_edges are estimated by --method attribution-patching alone");
        }
        if self.verify.is_some() && self.method != MethodName::AttributionPatching {
            bail!("--verify patches what attribution ranks first: it goes with --method attribution-patching");
        }
        if self.verify.is_some() && nodes.is_empty() {
            bail!("--verify has nothing to patch: head_edges are not nodes");
        }
        let of_clean_run = matches!(
            self.method,
            MethodName::IntegratedGradients | MethodName::Ablation | MethodName::LogitAttribution
        );
        if of_clean_run && self.direction == Some(Direction::Denoising) {
            bail!("--method {} is of the clean run: it has no denoising direction", self.method.name());
        }
        let of_logits = matches!(self.metric, MetricName::LogitDiff | MetricName::LogitDiffNormalized);
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
        Ok(())
    }

    /// The metric that effects are in: logit attribution is never normalized.
    pub(super) fn metric_name(&self) -> String {
        match self.method {
            MethodName::LogitAttribution => MetricName::LogitDiff.name(),
            _ => self.metric.name(),
        }
    }

    /// Whether logit attribution multiplies by the final norm's gain.
    pub(super) fn final_norm_gain(&self) -> FinalNormGain {
        match self.final_norm_gain {
            None | Some(GainName::Applied) => FinalNormGain::Applied,
            Some(GainName::LeftOut) => FinalNormGain::LeftOut,
        }
    }

    /// The unit of effects.
    pub(super) fn scale(&self) -> Scale {
        match self.metric {
            MetricName::LogitDiffNormalized => Scale::Normalized,
            _ => Scale::Metric,
        }
    }

    /// The direction of patching: denoising if none is given.
    pub(super) fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::Denoising)
    }

    /// Whether something is replaced by its mean.
    fn wants_mean(&self) -> bool {
        self.integral.wants_mean() || self.ablation.wants_mean()
    }

    /// The prompts that means are over: those of `--reference`, or the clean ones of the pairs.
    /// Empty if no mean is wanted.
    pub(super) fn reference(&self, source: &Source, pairs: &PromptPairs) -> anyhow::Result<Vec<Vec<u32>>> {
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

    /// Whether paths between heads are estimated.
    pub(super) fn wants_paths(&self) -> bool {
        self.nodes.contains(&NodeName::HeadEdges)
    }
}
