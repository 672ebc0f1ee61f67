//! The values of `--nodes`, `--method`, `--by`, `--final-norm-gain` and `--metric`.

use std::str::FromStr;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::ValueEnum;
use rewire_analysis::node::{Component, ParseNodeError};
use rewire_analysis::run::clean_logits_at;
use rewire_model::Transformer;
use rewire_tasks::{
    Accuracy, AnswerTokens, BuiltinMetric, KlDivergence, LogProbability, LogitDiff, Probability, ProbabilityDifference,
    PromptPairs,
};

/// A kind of node, as `--nodes` names it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum NodeName {
    Component(Component),
    HeadEdges,
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "head_edges" | "head_paths" => Ok(NodeName::HeadEdges),
            "" => Err("the list of nodes is empty".to_owned()),
            other => {
                let component = other.parse().map_err(|e: ParseNodeError| format!("{e}, head_edges"))?;
                Ok(NodeName::Component(component))
            }
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

/// The positions of a node, as `--by` names them.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ByName {
    All,
    Position,
    Cell,
    Marked,
}

/// The use of the final norm's gain, as `--final-norm-gain` names it.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum GainName {
    Applied,
    LeftOut,
}

/// A metric, as `--metric` names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum MetricName {
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
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns how the answers of the pairs are read, unless `--answers` says it.
    pub(super) fn answers(self) -> AnswerTokens {
        match self {
            MetricName::LogProb => AnswerTokens::Whole,
            _ => AnswerTokens::Single,
        }
    }

    /// Returns the metric for these pairs, at one position of each prompt; `log-prob` has its own
    /// positions. `kl` compares with the clean run, which this computes in batches of
    /// `prompt_batch` prompts.
    pub(super) fn metric<B: AutodiffBackend>(
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
