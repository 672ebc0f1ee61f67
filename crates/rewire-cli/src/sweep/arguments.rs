//! The arguments of `sweep`, and the checks on their combinations.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rewire_analysis::attribution::NormJacobian;
use rewire_analysis::edges::{Edge, EdgeEstimate, EdgeGraph, GradientsAt};
use rewire_analysis::node::{By, NodeKind};
use rewire_analysis::patching::Verify;
use rewire_analysis::run::{Direction, Scale};
use rewire_model::{BackwardRule, FinalNormGain, TransformerConfig};
use rewire_tasks::{AnswerTokens, MetricPosition, PairsFile, PairsFileError, PromptPairs};

use super::choices::{AlignName, ByName, GainName, MethodName, MetricName, NodeName, verify};
use super::edges::EdgeArguments;
use super::estimator::{EstimatorArguments, OnlyKinds};
use super::intervene::{AblationArguments, IntegralArguments, MeanArguments};
use super::paths::PathArguments;
use super::single::{SingleNode, SingleNodes};
use crate::arguments::at_least_one;
use crate::compute::NumberArguments;
use crate::device::Device;
use crate::headings::{ATTRIBUTION, COMPUTE, LOGIT_ATTRIBUTION, OUTPUT, UNCERTAINTY, WHAT};
use crate::model::{ModelArguments, Source};
use crate::output::OutputArguments;
use crate::pairs_file::PairsFileArguments;
use crate::shards::choice::ShardArguments;
use crate::shards::choice::ShardChoice;

/// Examples of the three most frequent sweeps.
const EXAMPLES: &str = "\
Examples:
  Patch every head; the results are in out/heads/report.html:
    rewire sweep --pairs pairs.jsonl --model gpt2 --out out/heads
  Estimate every neuron, and patch the 50 neurons of largest estimate exactly:
    rewire sweep --pairs pairs.jsonl --method attribution-patching --nodes mlp_post --verify 50
  Patch the paths from every head to the queries of head L3H1:
    rewire sweep --pairs pairs.jsonl --method path-patching --receivers head_q:L3H1 --out out/paths";

#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) file: PairsFileArguments,
    /// Method that computes the effects.
    ///
    /// activation-patching: patch each node and run the model again; exact. attribution-patching:
    /// estimate all nodes from one backward pass. path-patching: patch the paths to --receivers;
    /// exact. integrated-gradients: attribute the change of the metric along a line of activations.
    /// ablation: replace each node in the clean run; exact. logit-attribution: the direct
    /// contribution of each node to the logits.
    #[arg(
        long,
        value_enum,
        default_value = "activation-patching",
        hide_possible_values = true,
        help_heading = WHAT
    )]
    pub(super) method: MethodName,
    /// Kinds of nodes, or nodes: head_z:L3H7.
    ///
    /// Kinds: resid_pre resid_mid resid_post attn_out mlp_out head_q head_k head_v head_z
    /// head_result head_pattern mlp_post; with --method attribution-patching also head_edges;
    /// alone, edges: every edge from the input, a head or an MLP to a later head, MLP or the
    /// logits. Single edges, in quotes: 'a5.h9->a8.h6<v>,input->m7,m3->logits'. Single nodes:
    /// head_z:L3H7 mlp_out:L2 mlp_post:L1N17, with @N, @end or @marked for a position.
    #[arg(long, value_delimiter = ',', default_value = "head_z", value_name = "NODES", help_heading = WHAT)]
    pub(super) nodes: Vec<NodeName>,
    /// Positions: all, position, cell or marked.
    ///
    /// all: one node for all positions. position: one node per position (for head_pattern: per
    /// destination position). cell: one node per entry of an attention pattern (head_pattern only).
    /// marked: one node at the position that each line of --pairs gives. Positions count from 0;
    /// the BOS is position 0.
    #[arg(
        long,
        value_enum,
        default_value = "all",
        hide_possible_values = true,
        value_name = "POSITIONS",
        help_heading = WHAT
    )]
    pub(super) by: ByName,
    /// Where positions count from: start or end.
    ///
    /// For nodes by position or cell, from the start of each prompt or from its END. Prompts of
    /// different lengths share END.
    #[arg(long, value_enum, default_value = "start", hide_possible_values = true, help_heading = WHAT)]
    pub(super) align: AlignName,
    /// Direction: denoising or noising [default: denoising].
    ///
    /// denoising: patch clean activations into the corrupted run. noising: patch corrupted
    /// activations into the clean run. Ablation, integrated gradients and logit attribution use the
    /// clean run only.
    #[arg(long, help_heading = WHAT)]
    pub(super) direction: Option<Direction>,
    /// Metric of the logits.
    ///
    /// It reads the end of each prompt, or --metric-position.
    /// logit-diff-normalized (shares of the clean minus the corrupted logit difference),
    /// logit-diff, probability (of the answers), prob-diff (answers minus wrong answers), log-prob
    /// (of answers of one or more tokens; reads no wrong answers), kl (divergence from the clean
    /// run) or accuracy.
    #[arg(
        long,
        value_enum,
        default_value = "logit-diff-normalized",
        hide_possible_values = true,
        help_heading = WHAT
    )]
    pub(super) metric: MetricName,
    /// Position that the metric reads [default: -1, the last token].
    ///
    /// A number counted from 0 (the BOS, if there is one), a negative number counted from the end,
    /// or marked: the position that each line of --pairs gives.
    #[arg(long, value_name = "POSITION", allow_negative_numbers = true, help_heading = WHAT)]
    pub(super) metric_position: Option<MetricPosition>,
    /// Write the effects of each prompt pair instead of their mean.
    ///
    /// Tables get a leading axis, the prompt.
    #[arg(long, help_heading = WHAT)]
    pub(super) per_prompt: bool,
    /// Also patch the K nodes or edges of largest attribution exactly, or all.
    ///
    /// Reports how many were skipped. With --nodes edges, compares the estimates of the literature
    /// with the exact effects, and patches the K largest of each. Needs --method
    /// attribution-patching.
    #[arg(long, value_name = "K|all", value_parser = verify, help_heading = ATTRIBUTION)]
    pub(super) verify: Option<Verify>,
    /// Backward rule of the estimates: gradient, relp or gim.
    ///
    /// relp and gim pass back other numbers than the gradient, at the same cost. relp holds the
    /// scales of norms constant, takes the ratio a(x) / x for the slope of an activation function,
    /// and halves the gradient of a gated product. gim holds the scales, halves gated products,
    /// takes the slope of the softmax at temperature 2, and scales the gradients of queries, keys
    /// and values. Needs --method attribution-patching.
    #[arg(long, default_value_t, value_name = "RULE", help_heading = ATTRIBUTION)]
    pub(super) backward: BackwardRule,
    /// Norms of a head edge: exact or frozen [default: exact].
    ///
    /// For --nodes head_edges. exact differentiates the norms. frozen holds their scales constant,
    /// as --backward relp and gim always do.
    #[arg(long, help_heading = ATTRIBUTION)]
    norm: Option<NormJacobian>,
    #[command(flatten)]
    pub(super) estimator: EstimatorArguments,
    #[command(flatten)]
    pub(super) edges: EdgeArguments,
    /// Final norm's gain: applied or left-out [default: applied].
    ///
    /// For unprocessed weights: multiply the contributions by the gain (applied), or do not
    /// (left-out). left-out gives TransformerLens' numbers, which do not sum to the logits. Needs
    /// --method logit-attribution.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "GAIN", help_heading = LOGIT_ATTRIBUTION)]
    pub(super) final_norm_gain: Option<GainName>,
    #[command(flatten)]
    pub(super) paths: PathArguments,
    #[command(flatten)]
    pub(super) integral: IntegralArguments,
    #[command(flatten)]
    pub(super) ablation: AblationArguments,
    #[command(flatten)]
    pub(super) means: MeanArguments,
    /// Add standard errors, intervals and p-values to the tables.
    ///
    /// Each table of mean effects except head_edges and edges gets the standard error, the interval
    /// and the family-wise p-value. The interval is the 95% bootstrap interval, or the range if
    /// there are fewer than five clusters. A cluster is a pair, its mirror and their repeats; it
    /// counts once.
    #[arg(long, conflicts_with = "per_prompt", help_heading = UNCERTAINTY)]
    pub(super) intervals: bool,
    /// Seed of the bootstrap and of the sign flips.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = UNCERTAINTY)]
    pub(super) seed: u64,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(super) numbers: NumberArguments,
    /// Prompt pairs held in memory at once.
    ///
    /// By default, 32 on the CPU, and as many as fit on a GPU.
    #[arg(long, value_parser = at_least_one, value_name = "N", help_heading = COMPUTE)]
    pub(super) prompt_batch: Option<usize>,
    /// Directory for the results.
    ///
    /// The files are effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/sweep", value_name = "DIR", help_heading = OUTPUT)]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputArguments,
    #[command(flatten)]
    shards: ShardArguments,
}

impl Arguments {
    /// Returns the kinds of nodes to patch, without head edges. For single nodes, returns their
    /// kinds.
    ///
    /// # Errors
    /// If a kind is named twice, or if the method does not take one of the flags.
    pub(super) fn kinds(&self) -> anyhow::Result<Vec<NodeKind>> {
        let by = self.by.division();
        let mut nodes: Vec<NodeKind> = Vec::new();
        for (i, name) in self.nodes.iter().enumerate() {
            if self.nodes[..i].contains(name) {
                bail!("--nodes names {name} twice; remove one");
            }
            if let NodeName::Component(component) = *name {
                nodes.push(NodeKind { component, by });
            }
        }
        if let Some(single) = self.single()? {
            nodes = single.kinds();
        }
        if self.wants_edges() {
            self.check_edges()?;
        }
        self.check(&nodes)?;
        Ok(nodes)
    }

    /// Returns the single nodes to patch, if `--nodes` names single nodes.
    ///
    /// # Errors
    /// If `--nodes` names kinds as well, or if the method takes no single nodes.
    pub(super) fn single(&self) -> anyhow::Result<Option<SingleNodes>> {
        let single = |name: &NodeName| match name {
            NodeName::Single(node) => Some(node.clone()),
            _ => None,
        };
        let nodes: Vec<SingleNode> = self.nodes.iter().filter_map(single).collect();
        let Some(first) = nodes.first() else { return Ok(None) };
        if let Some(kind) = self.nodes.iter().find(|name| single(name).is_none()) {
            bail!("--nodes names all nodes of {kind} and the single node {first}; sweep them with two commands");
        }
        if self.verify.is_some() {
            bail!("--verify ranks all nodes of a kind, and {first} is a single node; remove --verify");
        }
        if [MethodName::IntegratedGradients, MethodName::LogitAttribution].contains(&self.method) {
            bail!(
                "--method {} takes kinds of nodes only, such as head_z; activation-patching, attribution-patching, \
                 path-patching and ablation take single nodes",
                self.method.name()
            );
        }
        Ok(Some(SingleNodes::new(nodes, self.by.division())?))
    }

    /// Refuses flags that the method or these kinds of nodes do not take.
    fn check(&self, nodes: &[NodeKind]) -> anyhow::Result<()> {
        if self.wants_paths() && self.method != MethodName::AttributionPatching {
            bail!("--nodes head_edges needs --method attribution-patching");
        }
        if self.verify.is_some() && self.method != MethodName::AttributionPatching {
            bail!("--verify needs --method attribution-patching, which ranks the nodes to patch");
        }
        if self.verify.is_some() && nodes.is_empty() && !self.wants_edges() {
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
        if self.edges.integrate.is_some() && !(self.wants_edges() && self.method == MethodName::AttributionPatching) {
            bail!("--integrate needs --nodes edges --method attribution-patching");
        }
        self.edges.check_circuits(self.nodes.contains(&NodeName::Edges))?;
        if self.final_norm_gain.is_some() && self.method != MethodName::LogitAttribution {
            bail!("--final-norm-gain needs --method logit-attribution");
        }
        if self.norm == Some(NormJacobian::Frozen) && !self.wants_paths() {
            bail!("--norm frozen needs --nodes head_edges");
        }
        self.check_backward()?;
        if nodes.is_empty() && !self.wants_edges() && self.by.division() != By::All {
            bail!("--by divides nodes, and head_edges are not nodes; remove --by");
        }
        self.check_align()?;
        self.estimator.check((self.method, self.backward), nodes, self.only_kinds(), self.verify)?;
        self.paths.check(self.method)?;
        self.integral.check(self.method, self.edges.integrate)?;
        self.ablation.check(self.method)?;
        self.means.check(self.wants_mean())?;
        Ok(())
    }

    /// Refuses a backward rule that the method does not take, and flags that contradict the rule.
    fn check_backward(&self) -> anyhow::Result<()> {
        let rule = self.backward;
        if rule == BackwardRule::Gradient {
            return Ok(());
        }
        if self.method == MethodName::IntegratedGradients {
            bail!(
                "--backward {rule} does not go with --method integrated-gradients: its attributions would not sum to \
                 the change of the metric; use --nodes edges --method attribution-patching --integrate inputs"
            );
        }
        if self.method != MethodName::AttributionPatching {
            bail!("--backward {rule} needs --method attribution-patching, which has a backward pass");
        }
        if self.norm == Some(NormJacobian::Exact) {
            bail!("--backward {rule} holds the scales of norms constant; remove --norm exact");
        }
        Ok(())
    }

    /// Returns whether `--nodes` names kinds of nodes alone.
    fn only_kinds(&self) -> OnlyKinds {
        let of_name = |name: &NodeName| match name {
            NodeName::Component(_) => None,
            NodeName::Single(_) => Some("names of single nodes"),
            NodeName::HeadEdges => Some("head_edges"),
            NodeName::Edges | NodeName::Edge(_) => Some("edges"),
        };
        self.nodes.iter().find_map(of_name).map_or(OnlyKinds::Yes, OnlyKinds::No)
    }

    /// Refuses flags that a sweep of all edges does not take.
    fn check_edges(&self) -> anyhow::Result<()> {
        let is_edge = |name: &NodeName| matches!(name, NodeName::Edges | NodeName::Edge(_));
        if !self.nodes.iter().all(is_edge) {
            bail!("--nodes names edges and nodes; sweep them with two commands");
        }
        if let (Some(edge), true) = (self.chosen_edges().first(), self.nodes.contains(&NodeName::Edges)) {
            bail!("--nodes names all edges and the edge {edge}; remove one of the two");
        }
        if ![MethodName::ActivationPatching, MethodName::AttributionPatching].contains(&self.method) {
            bail!("--nodes edges needs --method activation-patching or attribution-patching");
        }
        if let (Some(_), Some(edge)) = (self.verify, self.chosen_edges().first()) {
            bail!("--verify ranks all edges, and {edge} is one edge; use --nodes edges, or remove --verify");
        }
        if self.by.division() != By::All {
            bail!("--by divides nodes, and edges are not nodes; remove --by");
        }
        if self.intervals {
            bail!("--intervals does not go with --nodes edges; use --per-prompt for the effects of each prompt");
        }
        Ok(())
    }

    /// Refuses `--align end` where effects have no positions that can be counted from END.
    fn check_align(&self) -> anyhow::Result<()> {
        if self.align == AlignName::Start {
            return Ok(());
        }
        if ![By::Position, By::Cell].contains(&self.by.division()) {
            bail!("--align end needs --by position or --by cell");
        }
        if self.wants_paths() {
            bail!("--align end does not count the positions of head_edges from END; remove one of the two");
        }
        if self.verify.is_some() {
            bail!("--align end does not go with --verify, which ranks nodes by positions from the start; remove one");
        }
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

    /// Refuses a combination of flags that no pairs and no model make right.
    ///
    /// # Errors
    /// If there is one.
    pub(crate) fn check_flags(&self) -> anyhow::Result<()> {
        self.kinds().map(|_| ())
    }

    /// Returns the choice of a shard, if `--shard` gives one.
    pub(crate) fn shard(&self) -> Option<ShardChoice> {
        self.shards.shard
    }

    /// Returns the output directory.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Returns how the norms of head edges are differentiated.
    pub(super) fn norm(&self) -> NormJacobian {
        self.norm.unwrap_or(NormJacobian::of_rule(self.backward))
    }

    /// Replaces the pairs, the model and the device, as far as others are given.
    pub(crate) fn replace_inputs(&mut self, pairs: Option<&Path>, model: Option<&str>, device: Option<Device>) {
        if let Some(pairs) = pairs {
            self.file.pairs = pairs.into();
        }
        if let Some(model) = model {
            model.clone_into(&mut self.model.model);
        }
        if let Some(device) = device {
            self.model.device = device;
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
    pub(super) fn wants_mean(&self) -> bool {
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
                let read = self.read_pairs(path, source).context("cannot use the reference set of --reference")?;
                let prompts: Vec<Vec<u32>> = clean(&read.pairs);
                self.means.check_reference(&prompts, pairs.width())?;
                Ok(prompts)
            }
        }
    }

    /// Returns whether the sweep is one of edges.
    pub(super) fn wants_edges(&self) -> bool {
        self.nodes.iter().any(|name| matches!(name, NodeName::Edges | NodeName::Edge(_)))
    }

    /// Returns the estimates of edges that `--verify` compares: first that of these flags, then
    /// those of the literature. At the minimum of KL, only gradients along a line are not 0.
    pub(super) fn estimates_of_edges(&self) -> Vec<EdgeEstimate> {
        let own = EdgeEstimate::new(self.edges.gradients(&self.integral), self.backward);
        let mut others = EdgeEstimate::of_literature(self.integral.line_of_edges());
        others.retain(|other| {
            let vanishes = self.metric == MetricName::Kl && other.at == GradientsAt::Base;
            !vanishes && (other.at, other.backward) != (own.at, own.backward)
        });
        [vec![own], others].concat()
    }

    /// Returns the edges that `--nodes` names. Empty in a sweep of all edges.
    pub(super) fn chosen_edges(&self) -> Vec<Edge> {
        let edge = |name: &NodeName| match name {
            NodeName::Edge(edge) => Some(*edge),
            _ => None,
        };
        self.nodes.iter().filter_map(edge).collect()
    }

    /// Refuses an edge that the model lacks.
    pub(super) fn check_edges_of(&self, config: &TransformerConfig) -> anyhow::Result<()> {
        let graph = EdgeGraph::new(config);
        for edge in self.chosen_edges() {
            graph.place(&edge).with_context(|| {
                format!(
                    "cannot sweep the edge {edge} of --nodes: the model has {} layers of {} heads",
                    config.n_layers, config.n_heads
                )
            })?;
        }
        Ok(())
    }

    /// Returns whether head edges are estimated.
    pub(super) fn wants_paths(&self) -> bool {
        self.nodes.contains(&NodeName::HeadEdges)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::EXAMPLES;

    #[test]
    fn the_examples_in_the_help_parse() {
        let lines: Vec<&str> = EXAMPLES.lines().map(str::trim).filter(|line| line.starts_with("rewire ")).collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            let parsed = crate::Arguments::try_parse_from(line.split_whitespace());
            let crate::Command::Sweep(arguments) = parsed.unwrap().command else { panic!("{line}") };
            arguments.kinds().unwrap();
        }
    }
}
