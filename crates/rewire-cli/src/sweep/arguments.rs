//! The arguments of `sweep`, and the checks on their combinations.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rewire_analysis::attribution::NormJacobian;
use rewire_analysis::node::{By, NodeKind};
use rewire_analysis::run::{Direction, Scale};
use rewire_model::FinalNormGain;
use rewire_tasks::{AnswerTokens, MetricPosition, PairsFile, PairsFileError, PromptPairs};

use super::choices::{ByName, GainName, MethodName, MetricName, NodeName};
use super::intervene::{AblationArguments, IntegralArguments, MeanArguments};
use super::paths::PathArguments;
use crate::arguments::at_least_one;
use crate::compute::NumberArguments;
use crate::model::{ModelArguments, Source};
use crate::output::WaitArguments;
use crate::pairs_file::PairsFileArguments;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) file: PairsFileArguments,
    #[command(flatten)]
    pub(super) model: ModelArguments,
    #[command(flatten)]
    pub(super) numbers: NumberArguments,
    /// Method that computes the effects.
    #[arg(long, value_enum, default_value = "activation-patching")]
    pub(super) method: MethodName,
    /// Kinds of nodes: resid_pre resid_mid resid_post attn_out mlp_out head_q head_k head_v head_z
    /// head_result head_pattern mlp_post; with --method attribution-patching also head_edges.
    #[arg(long, value_delimiter = ',', default_value = "head_z")]
    pub(super) nodes: Vec<NodeName>,
    /// Positions of a node. all: one node for all positions; position: one node per position (for
    /// head_pattern: per destination position); cell: one node per entry of an attention pattern
    /// (head_pattern only); marked: one node at the position that each line of --pairs gives.
    #[arg(long, value_enum, default_value = "all")]
    pub(super) by: ByName,
    /// Direction of patching [default: denoising]. denoising: patch clean activations into the
    /// corrupted run; noising: patch corrupted activations into the clean run. Ablation, integrated
    /// gradients and logit attribution use the clean run only.
    #[arg(long)]
    pub(super) direction: Option<Direction>,
    /// Metric of the logits at the end of each prompt. log-prob is the log-probability of answers
    /// of one or more tokens; it does not read wrong answers.
    #[arg(long, value_enum, default_value = "logit-diff-normalized")]
    pub(super) metric: MetricName,
    /// Position of each prompt that the metric reads: a number counted from 0 (the BOS, if there is
    /// one), a negative number counted from the end, or marked (the position that each line of
    /// --pairs gives) [default: -1, the last token].
    #[arg(long, value_name = "POSITION", allow_negative_numbers = true)]
    metric_position: Option<MetricPosition>,
    /// For head_edges: differentiate the norm before a head exactly (exact), or with its scale held
    /// constant (frozen).
    #[arg(long, default_value = "exact")]
    pub(super) norm: NormJacobian,
    /// For attribution patching: also patch the K nodes of largest attribution exactly, and report
    /// how many nodes were skipped.
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub(super) verify: Option<usize>,
    /// For logit attribution with unprocessed weights: multiply the contributions by the final
    /// norm's gain (applied), or do not (left-out). left-out gives TransformerLens' numbers, which
    /// do not sum to the logits [default: applied].
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
    /// Write the effects of each prompt pair, on a leading axis, instead of their mean.
    #[arg(long)]
    pub(super) per_prompt: bool,
    /// Add the standard error, the interval and the family-wise p-value to each table of mean
    /// effects except head_edges. The interval is the 95% bootstrap interval, or the range if there
    /// are fewer than five clusters. A cluster is a pair, its mirror and their repeats; it counts
    /// once.
    #[arg(long, conflicts_with = "per_prompt")]
    pub(super) intervals: bool,
    /// Seed of the bootstrap and of the sign flips.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Prompt pairs held in memory at once [default: 32 on the CPU; as many as fit on a GPU].
    #[arg(long, value_parser = at_least_one)]
    pub(super) prompt_batch: Option<usize>,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/sweep")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) wait: WaitArguments,
}

impl Arguments {
    /// Returns the kinds of nodes to patch, without head edges.
    ///
    /// # Errors
    /// If a kind is named twice, or if the method does not take one of the flags.
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
                bail!("--nodes names {name} twice; remove one");
            }
            if let NodeName::Component(component) = *name {
                nodes.push(NodeKind { component, by });
            }
        }
        self.check(&nodes)?;
        Ok(nodes)
    }

    /// Refuses flags that the method or these kinds of nodes do not take.
    fn check(&self, nodes: &[NodeKind]) -> anyhow::Result<()> {
        if self.wants_paths() && self.method != MethodName::AttributionPatching {
            bail!("--nodes head_edges needs --method attribution-patching");
        }
        if self.verify.is_some() && self.method != MethodName::AttributionPatching {
            bail!("--verify needs --method attribution-patching, which ranks the nodes to patch");
        }
        if self.verify.is_some() && nodes.is_empty() {
            bail!("--verify patches nodes, and head_edges are not nodes; add a kind of node to --nodes");
        }
        let of_clean_run = matches!(
            self.method,
            MethodName::IntegratedGradients | MethodName::Ablation | MethodName::LogitAttribution
        );
        if of_clean_run && self.direction == Some(Direction::Denoising) {
            bail!("--method {} uses the clean run only; remove --direction denoising", self.method.name());
        }
        let of_logits = matches!(self.metric, MetricName::LogitDiff | MetricName::LogitDiffNormalized);
        if self.method == MethodName::LogitAttribution && !of_logits {
            bail!(
                "--method logit-attribution measures the logit difference only; remove --metric {}",
                self.metric.name()
            );
        }
        if self.method == MethodName::LogitAttribution && self.metric_position.is_some() {
            bail!("--method logit-attribution reads the last token; remove --metric-position");
        }
        if self.metric == MetricName::LogProb && self.metric_position.is_some() {
            bail!("--metric log-prob reads the positions of the answer; remove --metric-position");
        }
        if self.answers() == AnswerTokens::Whole && self.metric != MetricName::LogProb {
            bail!(
                "--answers whole needs --metric log-prob, which reads every token of an answer; --metric {} reads one \
                 (--answers first-token)",
                self.metric.name()
            );
        }
        if self.final_norm_gain.is_some() && self.method != MethodName::LogitAttribution {
            bail!("--final-norm-gain needs --method logit-attribution");
        }
        self.paths.check(self.method)?;
        self.integral.check(self.method)?;
        self.ablation.check(self.method)?;
        self.means.check(self.wants_mean())?;
        Ok(())
    }

    /// Returns the name of the metric that effects are measured in. Logit attribution is never
    /// normalized.
    pub(super) fn metric_name(&self) -> String {
        match self.method {
            MethodName::LogitAttribution => MetricName::LogitDiff.name(),
            _ => self.metric.name(),
        }
    }

    /// Returns the metric and where it reads, for a heading.
    pub(super) fn metric_in_words(&self) -> String {
        match self.metric_position {
            Some(MetricPosition::Marked) => format!("{} at the marked position", self.metric_name()),
            Some(position) => format!("{} at position {position}", self.metric_name()),
            None => self.metric_name(),
        }
    }

    /// Returns where the metric reads, as files state it: the position, or `answer` for the tokens
    /// of the answer.
    pub(super) fn metric_position(&self) -> String {
        match self.metric {
            MetricName::LogProb => "answer".to_owned(),
            _ => self.metric_position.unwrap_or_default().to_string(),
        }
    }

    /// Returns the position of each prompt that the metric reads, if it reads one.
    ///
    /// # Errors
    /// If a prompt lacks the position.
    pub(super) fn metric_positions(&self, pairs: &PromptPairs) -> anyhow::Result<Vec<usize>> {
        let position = self.metric_position.unwrap_or_default();
        position.of(pairs).with_context(|| format!("cannot read the metric at --metric-position {position}"))
    }

    /// Returns how answers of several tokens are read.
    fn answers(&self) -> AnswerTokens {
        self.file.reading.answers(self.metric.answers())
    }

    /// Reads a file of prompt pairs for the metric.
    pub(super) fn read_pairs(&self, path: &Path, source: &Source) -> Result<PairsFile, PairsFileError> {
        self.file.reading.read(path, source, self.metric.answers())
    }

    /// Returns whether logit attribution multiplies by the final norm's gain.
    pub(super) fn final_norm_gain(&self) -> FinalNormGain {
        match self.final_norm_gain {
            None | Some(GainName::Applied) => FinalNormGain::Applied,
            Some(GainName::LeftOut) => FinalNormGain::LeftOut,
        }
    }

    /// Returns the scale of effects.
    pub(super) fn scale(&self) -> Scale {
        match self.metric {
            MetricName::LogitDiffNormalized => Scale::Normalized,
            _ => Scale::Metric,
        }
    }

    /// Returns the direction of patching, by default denoising.
    pub(super) fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::Denoising)
    }

    /// Returns whether the baseline or the ablation uses mean activations.
    fn wants_mean(&self) -> bool {
        self.integral.wants_mean() || self.ablation.wants_mean()
    }

    /// Returns the prompts that means are taken over: the clean prompts of `--reference`, or else
    /// of the pairs. The list is empty if no mean is used.
    pub(super) fn reference(&self, source: &Source, pairs: &PromptPairs) -> anyhow::Result<Vec<Vec<u32>>> {
        let clean = |pairs: &PromptPairs| pairs.pairs().iter().map(|p| p.clean.clone()).collect();
        match &self.means.reference {
            _ if !self.wants_mean() => Ok(Vec::new()),
            None => Ok(clean(pairs)),
            Some(path) => {
                let read = self.read_pairs(path, source);
                Ok(clean(&read.context("cannot use the reference set of --reference")?.pairs))
            }
        }
    }

    /// Returns whether head edges are estimated.
    pub(super) fn wants_paths(&self) -> bool {
        self.nodes.contains(&NodeName::HeadEdges)
    }
}
