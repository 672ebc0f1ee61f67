//! The values of `--nodes`, `--method`, `--by`, `--align`, `--final-norm-gain` and `--metric`.

use std::fmt;
use std::str::FromStr;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::ValueEnum;
use rewire_analysis::edges::{Edge, ParseEdgeError};
use rewire_analysis::node::{By, Component, Node};
use rewire_analysis::patching::Verify;
use rewire_analysis::run::clean_logits_at;
use rewire_input::{cut, did_you_mean};
use rewire_model::Transformer;
use rewire_tasks::{
    Accuracy, AnswerTokens, BuiltinMetric, KlDivergence, LogProbability, LogitDiff, Probability, ProbabilityDifference,
    PromptPairs,
};

use super::single::SingleNode;
use crate::arguments::at_least_one;

/// A kind of node or a single node, as `--nodes` names it.
#[derive(Clone, PartialEq)]
pub(super) enum NodeName {
    Component(Component),
    Single(SingleNode),
    HeadEdges,
    Edges,
    Edge(Edge),
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let name = name.trim();
        if name.is_empty() {
            return Err("the list of nodes is empty".to_owned());
        }
        if ["head_edges", "head_paths"].contains(&name.to_ascii_lowercase().replace('-', "_").as_str()) {
            return Ok(NodeName::HeadEdges);
        }
        if name.eq_ignore_ascii_case("edges") {
            return Ok(NodeName::Edges);
        }
        if name.contains("->") {
            return name.parse().map(NodeName::Edge).map_err(|error: ParseEdgeError| error.to_string());
        }
        if let Ok(component) = name.parse() {
            return Ok(NodeName::Component(component));
        }
        let kind = name.split([':', '@']).next().unwrap_or_default();
        match kind.parse::<Component>() {
            Ok(_) if !name.contains(':') => Err(format!(
                "`{}` names no single node; write its place, such as head_z:L3H7@14 or mlp_out:L3@14, or divide all nodes \
                 of a kind with --by",
                cut(name)
            )),
            // A head and a hook point are nodes without a kind.
            Err(_) if kind.parse::<Node>().is_err() => Err(unknown_kind(kind)),
            _ => name.parse().map(NodeName::Single),
        }
    }
}

/// Returns the error for a kind of node that does not exist.
fn unknown_kind(kind: &str) -> String {
    let mut names: Vec<String> = Component::all().map(|component| component.to_string()).collect();
    names.extend(["head_edges", "edges"].map(str::to_owned));
    format!(
        "unknown node kind `{}`; use one of {}, or a single node, such as head_z:L3H7 or mlp_out:L2{}",
        cut(kind),
        names.join(", "),
        did_you_mean(kind, names.iter().map(String::as_str))
    )
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeName::Component(component) => write!(f, "{component}"),
            NodeName::Single(node) => write!(f, "{node}"),
            NodeName::HeadEdges => f.write_str("head_edges"),
            NodeName::Edges => f.write_str("edges"),
            NodeName::Edge(edge) => write!(f, "{edge}"),
        }
    }
}

/// A method, as `--method` names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum MethodName {
    ActivationPatching,
    AttributionPatching,
    PathPatching,
    IntegratedGradients,
    Ablation,
    LogitAttribution,
}

impl MethodName {
    /// Returns the name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Parses the nodes that `--verify` patches: a number of them, or all.
pub(super) fn verify(text: &str) -> Result<Verify, String> {
    match text {
        "all" => Ok(Verify::All),
        text => at_least_one(text).map(Verify::Largest).map_err(|error| format!("{error}; give a number or `all`")),
    }
}

/// What moves along the line of edge attribution, as `--integrate` names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum IntegrateName {
    Inputs,
    Activations,
}

/// The positions of a node, as `--by` names them.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ByName {
    All,
    Position,
    Cell,
    Marked,
}

impl ByName {
    /// Returns the division of nodes.
    pub(super) fn division(self) -> By {
        match self {
            ByName::All => By::All,
            ByName::Position => By::Position,
            ByName::Cell => By::Cell,
            ByName::Marked => By::Marked,
        }
    }
}

/// The end of the prompts from which positions are counted, as `--align` names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum AlignName {
    Start,
    End,
}

impl AlignName {
    /// Returns the name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The use of the final norm's gain, as `--final-norm-gain` names it.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum GainName {
    Applied,
    LeftOut,
}

/// A metric, as `--metric` names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum MetricName {
    #[value(alias = "logit-diff-normalised")]
    LogitDiffNormalized,
    LogitDiff,
    Probability,
    ProbDiff,
    LogProb,
    Kl,
    Accuracy,
}

impl MetricName {
    /// Returns the name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns how the answers of the pairs are read, unless `--answers` says it.
    pub(crate) fn answers(self) -> AnswerTokens {
        match self {
            MetricName::LogProb => AnswerTokens::Whole,
            _ => AnswerTokens::Single,
        }
    }

    /// Returns the metric for these pairs, at one position of each prompt; `log-prob` has its own
    /// positions. `kl` compares with the clean run, which this computes in batches of
    /// `prompt_batch` prompts.
    pub(crate) fn metric<B: AutodiffBackend>(
        self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        positions: Vec<usize>,
        prompt_batch: usize,
    ) -> anyhow::Result<BuiltinMetric> {
        Ok(match self {
            MetricName::LogitDiffNormalized | MetricName::LogitDiff => {
                BuiltinMetric::LogitDiff(LogitDiff::new(pairs).at(positions))
            }
            MetricName::Probability => BuiltinMetric::Probability(Probability::new(pairs).at(positions)),
            MetricName::ProbDiff => {
                BuiltinMetric::ProbabilityDifference(ProbabilityDifference::new(pairs).at(positions))
            }
            MetricName::LogProb => BuiltinMetric::LogProbability(LogProbability::new(pairs)),
            MetricName::Accuracy => BuiltinMetric::Accuracy(Accuracy::new(pairs).at(positions)),
            MetricName::Kl => {
                let reference = clean_logits_at(&model.valid(), pairs, &positions, prompt_batch)?;
                BuiltinMetric::KlDivergence(KlDivergence::new(pairs, &reference).at(positions))
            }
        })
    }
}
