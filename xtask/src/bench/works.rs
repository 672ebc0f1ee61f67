//! The sweeps that are timed, on prompts like the demo's.

use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::ValueEnum;
use rewire_analysis::{
    By, Component, NodeKind, NormJacobian, Options, PathOptions, PerPrompt, activation_patching,
    activation_patching_operations, attention_attribution, attribution_patching, attribution_patching_with_head_paths,
};
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};

/// One piece of work, as TransformerLens' users do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Attribution patching as the demo runs it.
    Attribution,
    /// Attribution patching of the corrupted run alone.
    AttributionLean,
    /// The outputs of all heads, all positions.
    Heads,
    /// The same on pairs that differ at every token.
    HeadsDifferEverywhere,
    /// Residual stream, attention and MLP outputs by position.
    BlocksByPosition,
    /// Head outputs, queries, keys, values and patterns, all positions.
    HeadParts,
    /// The same by position.
    HeadPartsByPosition,
    /// All MLP neurons, all positions.
    Neurons,
}

const PARTS: [Component; 5] =
    [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];
const BLOCKS: [Component; 3] = [Component::ResidPre, Component::AttnOut, Component::MlpOut];

/// Prompts, tokens in each, and where they differ: as in the demo.
const PROMPTS: usize = 8;
const TOKENS: usize = 15;
const DIFFERENT: usize = 10;

impl Work {
    /// Those that take seconds.
    pub(crate) fn quick() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|w| *w != Work::Neurons).collect()
    }

    pub(crate) fn describe(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The nodes of an exact sweep.
    fn nodes(self) -> Option<Vec<NodeKind>> {
        Some(match self {
            Work::Attribution | Work::AttributionLean => return None,
            Work::Heads | Work::HeadsDifferEverywhere => vec![NodeKind::all(Component::HeadZ)],
            Work::BlocksByPosition => BLOCKS.map(NodeKind::by_position).to_vec(),
            Work::HeadParts => PARTS.map(NodeKind::all).to_vec(),
            Work::HeadPartsByPosition => PARTS.map(NodeKind::by_position).to_vec(),
            Work::Neurons => vec![NodeKind::all(Component::MlpPost)],
        })
    }

    fn pairs(self, seed: u64) -> anyhow::Result<PromptPairs> {
        let differs = |position| position == DIFFERENT || self == Work::HeadsDifferEverywhere;
        // A linear congruence is enough to spread the tokens over the vocabulary.
        let token = |i: usize| ((i as u64 + 1 + 1000 * seed) * 7919 % 50_000) as u32;
        let prompt = |row: usize| -> Vec<u32> {
            (0..TOKENS)
                .map(|p| token(if differs(p) { 100 * (row + 1) + p } else { 100 * (row / 2) + 50 + p }))
                .collect()
        };
        let pair = |row: usize| PromptPair {
            clean: prompt(row),
            corrupted: prompt(row ^ 1),
            answers: vec![token(2000 + row)],
            wrong_answers: vec![token(2000 + (row ^ 1))],
        };
        Ok(PromptPairs::new((0..PROMPTS).map(pair).collect())?)
    }

    /// Does it once.
    pub(crate) fn run<B: AutodiffBackend>(
        self,
        model: &Transformer<B>,
        seed: u64,
        token_budget: Option<usize>,
    ) -> anyhow::Result<()> {
        let pairs = self.pairs(seed)?;
        let metric = LogitDiff::new(&pairs);
        let mut options = Options::default();
        options.scale = rewire_analysis::Scale::Metric;
        options.token_budget = token_budget.unwrap_or(options.token_budget);
        if let Some(nodes) = self.nodes() {
            activation_patching(&model.valid(), &pairs, &metric, &nodes, &options)?;
            return Ok(());
        }
        let blocks =
            [Component::ResidPre, Component::ResidMid, Component::ResidPost, Component::AttnOut, Component::MlpOut];
        let mut nodes = blocks.map(NodeKind::by_position).to_vec();
        nodes.extend(PARTS[..4].iter().copied().map(NodeKind::by_position));
        nodes.push(NodeKind { component: Component::HeadPattern, by: By::Cell });
        if self == Work::AttributionLean {
            attribution_patching(model, &pairs, &metric, &nodes, &options)?;
            return Ok(());
        }
        let paths = PathOptions { norm: NormJacobian::Frozen, per_prompt: PerPrompt::Mean };
        attribution_patching_with_head_paths(model, &pairs, &metric, &nodes, paths, &options)?;
        attention_attribution(model, &pairs, &metric, &options)?;
        Ok(())
    }

    /// The floating-point operations that an exact sweep cannot do without.
    pub(crate) fn operations<B: Backend>(self, model: &Transformer<B>, seed: u64) -> anyhow::Result<Option<f64>> {
        let Some(nodes) = self.nodes() else { return Ok(None) };
        let pairs = self.pairs(seed)?;
        let metric = LogitDiff::new(&pairs);
        Ok(Some(activation_patching_operations(model, &pairs, &metric, &nodes, &Options::default())?))
    }
}
