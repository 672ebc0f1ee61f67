//! The works to time, on prompts like the demo's.

use std::path::Path;

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::ValueEnum;
use ndarray::ArrayD;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attention_attribution, attribution_patching, attribution_patching_with_edges,
};
use rewire_analysis::edges::{EdgeGraph, GradientsAt, attribute_all_edges, edge_patching_cost, patch_all_edges};
use rewire_analysis::integrated::{IntegratedGradientsOptions, Quadrature, Rule, integrated_gradients};
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::patching::{
    Cost, activation_patching, activation_patching_cost, attribution_patching_cost, forward_cost,
    integrated_gradients_cost,
};
use rewire_analysis::path::{FreezePolicy, Input, Receiver, path_patching, path_patching_cost};
use rewire_analysis::run::{Direction, Execution, Question, clean_logits};
use rewire_analysis::{Effects, Outcome};
use rewire_hooks::{GradientProbes, Head, HookPoint, Site};
use rewire_model::{ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs, Reads};
use serde_json::{Value, json};

use super::sizes::Size;

/// A work: one analysis that users of TransformerLens run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// One forward pass of the clean prompts.
    Forward,
    /// One forward and one backward pass of the clean prompts, with gradients at q and z of each
    /// head.
    ForwardBackward,
    /// Attribution patching as in the demo.
    Attribution,
    /// Attribution patching with gradients on the corrupted run only.
    AttributionLean,
    /// Activation patching of each head's z, all positions at once.
    Heads,
    /// Activation patching of each head's z, on pairs that differ at every token.
    HeadsDifferEverywhere,
    /// Activation patching of resid_pre, attn_out and mlp_out by position.
    BlocksByPosition,
    /// Activation patching of each head's z, q, k, v and pattern, all positions at once.
    HeadParts,
    /// Activation patching of each head's z, q, k, v and pattern by position.
    HeadPartsByPosition,
    /// Activation patching of each MLP neuron, all positions at once.
    Neurons,
    /// Integrated gradients of all heads and neurons, 50 steps, on one pair as in the comparison
    /// notebook. The peer uses Captum as the notebook does, but with the metric of each row.
    IntegratedGradients,
    /// Integrated gradients of all heads and neurons, 50 steps, on one pair. The peer uses Captum
    /// with the least work possible.
    IntegratedGradientsLean,
    /// Activation patching of each MLP neuron on one pair, as in the comparison notebook.
    NeuronsOnePair,
    /// Path patching from each head to the last residual stream.
    PathsToResidual,
    /// Path patching from each head to the queries of the Pythia notebook's six name mover heads.
    PathsToQueries,
    /// Exact patching of every edge.
    Edges,
    /// EAP: estimates of every edge from one backward pass.
    Eap,
    /// EAP-IG on inputs, 5 steps: estimates of every edge.
    EapIg,
}

const PARTS: [Component; 5] =
    [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];
/// The line of EAP-IG in its paper.
const EAP_IG: Quadrature = Quadrature { rule: Rule::RiemannRight, steps: 5 };
const BLOCKS: [Component; 3] = [Component::ResidPre, Component::AttnOut, Component::MlpOut];

/// Tokens per prompt, as in the demo.
pub(crate) const TOKENS: usize = 15;
/// The position at which the prompts of a pair differ, as in the demo.
const DIFFERENT: usize = 10;

/// Tokens per prompt of the comparison notebook's pair.
const NOTEBOOK_TOKENS: usize = 17;
/// Attributions to compare per line of integrated gradients: all heads of GPT-2 small, or as many
/// neurons.
const OF_A_LINE: usize = 12;

/// The heads whose queries are receivers, in GPT-2 small (12 layers of 12 heads).
const MOVERS: [Head; 6] =
    [Head::new(8, 1), Head::new(8, 2), Head::new(8, 10), Head::new(9, 4), Head::new(9, 6), Head::new(10, 7)];

/// Returns the heads of another shape that correspond to [`MOVERS`] in relative depth and index.
pub(crate) fn movers(config: &TransformerConfig) -> Vec<Head> {
    let mut movers: Vec<_> =
        MOVERS.iter().map(|h| Head::new(h.layer * config.n_layers / 12, h.head * config.n_heads / 12)).collect();
    movers.dedup();
    movers
}

/// The prompts and the execution of all works.
pub(crate) struct Setting<'a> {
    /// Pairs that differ at one token.
    one: PromptPairs,
    /// One pair, as long as the comparison notebook's.
    notebook: PromptPairs,
    /// Pairs that differ at every token.
    everywhere: PromptPairs,
    /// Tolerance of integrated gradients.
    tolerance: f64,
    execution: Execution<'a>,
}

impl<'a> Setting<'a> {
    /// Returns the prompts for a model, with the default execution.
    ///
    /// # Errors
    /// If the pairs do not fit the model.
    pub(crate) fn new<B: Backend>(
        model: &Transformer<B>,
        seed: u64,
        n_pairs: usize,
        tolerance: f64,
    ) -> anyhow::Result<Self> {
        let d_vocab = model.config().d_vocab;
        let pairs = |tokens, n, differ: fn(usize) -> bool| answered(model, pairs(seed, d_vocab, n, tokens, differ)?);
        let one = pairs(TOKENS, n_pairs, |p| p == DIFFERENT)?;
        let of_notebook = pairs(NOTEBOOK_TOKENS, 2, |p| p == DIFFERENT)?;
        let notebook = PromptPairs::new(of_notebook.pairs()[..1].to_vec())?;
        Ok(Self {
            one,
            notebook,
            everywhere: pairs(TOKENS, n_pairs, |_| true)?,
            tolerance,
            execution: Execution::default(),
        })
    }

    /// Sets the execution.
    pub(crate) fn with(self, execution: Execution<'a>) -> Self {
        Self { execution, ..self }
    }

    pub(crate) fn n_pairs(&self) -> usize {
        self.one.len()
    }

    pub(crate) fn execution(&self) -> &Execution<'a> {
        &self.execution
    }

    /// Writes the prompts and the model for the peer. Writes the weights of the model if the size
    /// is shared, or else only the shape.
    pub(crate) fn write<B: Backend>(&self, model: &Transformer<B>, size: Size, directory: &Path) -> anyhow::Result<()> {
        if size.is_shared() {
            model.save(directory)?;
        }
        let movers: Vec<[usize; 2]> = movers(model.config()).iter().map(|h| [h.layer, h.head]).collect();
        let shape = json!({ "shape": size.describe(), "movers": movers, "shared": size.is_shared() });
        std::fs::write(directory.join("setting.json"), shape.to_string())?;
        let describe = |pairs: &PromptPairs| -> Value {
            let pair = |p: &PromptPair| json!({ "clean": p.clean, "corrupt": p.corrupted, "answers": p.answers, "wrong_answers": p.wrong_answers });
            pairs.pairs().iter().map(pair).collect()
        };
        let prompts = json!({
            "one": describe(&self.one), "all": describe(&self.everywhere), "notebook": describe(&self.notebook),
        });
        Ok(std::fs::write(directory.join("prompts.json"), prompts.to_string())?)
    }
}

/// Returns `n` pairs of prompts. The next pair swaps clean and corrupted. The tokens of a pair
/// differ at the positions that `differ` accepts.
fn pairs(
    seed: u64,
    d_vocab: usize,
    n: usize,
    tokens: usize,
    differ: impl Fn(usize) -> bool,
) -> anyhow::Result<PromptPairs> {
    // A linear congruence is enough to spread the tokens over the vocabulary.
    let token = |i: usize| ((i as u64 + 1 + 1000 * (seed % 1_000_000)) * 7919 % (d_vocab as u64 / 1000 * 1000)) as u32;
    let prompt = |row: usize| -> Vec<u32> {
        (0..tokens).map(|p| token(if differ(p) { 100 * (row + 1) + p } else { 100 * (row / 2) + 50 + p })).collect()
    };
    let pair = |row: usize| PromptPair {
        clean: prompt(row),
        corrupted: prompt(row ^ 1),
        answers: vec![0],
        wrong_answers: vec![1],
    };
    Ok(PromptPairs::new((0..n).map(pair).collect())?)
}

/// Returns the pairs with the answers that distinguish clean from corrupted most. A random model
/// has no behavior: with other answers the metric's difference would be near 0, and normalized
/// effects mostly rounding errors.
fn answered<B: Backend>(model: &Transformer<B>, pairs: PromptPairs) -> anyhow::Result<PromptPairs> {
    let clean = clean_logits(model, &pairs, 8)?;
    let most = |row: usize, other: usize| {
        let rise = |v: &usize| clean[row][*v] - clean[other][*v];
        (0..model.config().d_vocab).max_by(|a, b| rise(a).total_cmp(&rise(b))).unwrap_or(0) as u32
    };
    let pair = |(row, pair): (usize, &PromptPair)| PromptPair {
        answers: vec![most(row, row ^ 1)],
        wrong_answers: vec![most(row ^ 1, row)],
        ..pair.clone()
    };
    Ok(PromptPairs::new(pairs.pairs().iter().enumerate().map(pair).collect())?)
}

/// The kinds of nodes of integrated gradients.
const LINES: [NodeKind; 2] = [
    NodeKind { component: Component::HeadResult, by: By::All },
    NodeKind { component: Component::MlpPost, by: By::All },
];

/// Returns the first attributions of each line: for each layer the heads, then the neurons.
fn integrated<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    tolerance: f64,
    execution: &Execution,
) -> anyhow::Result<Vec<f32>> {
    let integral = IntegratedGradientsOptions { tolerance, ..IntegratedGradientsOptions::default() };
    let metric = LogitDiff::new(pairs);
    let found = integrated_gradients(model, Question::new(pairs, &metric), &LINES, &integral, execution)?;
    let means: Vec<_> = found.outcome.effects.iter().map(Effects::mean).collect();
    let of_line = |mean: &ArrayD<f32>| OF_A_LINE.min(mean.shape()[1]);
    let line =
        |layer: usize| means.iter().flat_map(move |mean| (0..of_line(mean)).map(move |unit| mean[[layer, unit]]));
    Ok((0..model.config().n_layers).flat_map(line).collect())
}

impl Work {
    /// Returns the works that take seconds.
    pub(crate) fn quick() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|w| !w.takes_minutes()).collect()
    }

    fn takes_minutes(self) -> bool {
        matches!(self, Work::Neurons | Work::NeuronsOnePair | Work::Edges)
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns the kinds of nodes of activation patching, if the work is activation patching.
    fn nodes(self) -> Option<Vec<NodeKind>> {
        Some(match self {
            Work::Forward
            | Work::ForwardBackward
            | Work::Attribution
            | Work::AttributionLean
            | Work::IntegratedGradients
            | Work::IntegratedGradientsLean => return None,
            Work::PathsToResidual | Work::PathsToQueries | Work::Edges | Work::Eap | Work::EapIg => return None,
            Work::Heads | Work::HeadsDifferEverywhere => vec![NodeKind::all(Component::HeadZ)],
            Work::BlocksByPosition => BLOCKS.map(NodeKind::by_position).to_vec(),
            Work::HeadParts => PARTS.map(NodeKind::all).to_vec(),
            Work::HeadPartsByPosition => PARTS.map(NodeKind::by_position).to_vec(),
            Work::Neurons | Work::NeuronsOnePair => vec![NodeKind::all(Component::MlpPost)],
        })
    }

    /// Returns the number of patches of the work, or its lines of integration; 1 for the other
    /// works.
    pub(crate) fn n_nodes(self, config: &TransformerConfig) -> usize {
        let heads = config.n_layers * config.n_heads;
        match self {
            Work::Forward | Work::ForwardBackward | Work::Attribution | Work::AttributionLean => 1,
            Work::Eap | Work::EapIg => 1,
            Work::Edges => EdgeGraph::new(config).n_edges(),
            Work::Heads | Work::HeadsDifferEverywhere | Work::PathsToResidual | Work::PathsToQueries => heads,
            Work::BlocksByPosition => BLOCKS.len() * config.n_layers * TOKENS,
            Work::HeadParts => PARTS.len() * heads,
            Work::HeadPartsByPosition => PARTS.len() * heads * TOKENS,
            Work::Neurons | Work::NeuronsOnePair => config.n_layers * config.d_mlp,
            Work::IntegratedGradients | Work::IntegratedGradientsLean => 2 * config.n_layers,
        }
    }

    /// Returns the receivers of path patching, if the work is path patching.
    fn receivers(self, config: &TransformerConfig) -> Option<Vec<Receiver>> {
        match self {
            Work::PathsToResidual => Some(vec![Receiver::new(config.n_layers - 1, Input::ResidPost)]),
            Work::PathsToQueries => {
                Some(movers(config).into_iter().map(|h| Receiver::new(h.layer, Input::Q).head(h.head)).collect())
            }
            _ => None,
        }
    }

    fn pairs<'s>(self, setting: &'s Setting<'_>) -> &'s PromptPairs {
        match self {
            Work::HeadsDifferEverywhere => &setting.everywhere,
            Work::IntegratedGradients | Work::IntegratedGradientsLean | Work::NeuronsOnePair => &setting.notebook,
            _ => &setting.one,
        }
    }

    /// Runs the work once and returns the mean effects. Attribution returns the effects of head
    /// outputs only, and forward passes return the logit difference of each prompt.
    pub(crate) fn run<B: AutodiffBackend>(self, model: &Transformer<B>, setting: &Setting) -> anyhow::Result<Vec<f32>> {
        let (pairs, execution) = (self.pairs(setting), &setting.execution);
        let metric = LogitDiff::new(pairs);
        let numbers = |outcome: &Outcome| outcome.effects.iter().flat_map(|e| e.mean()).collect::<Vec<f32>>();
        match self {
            Work::Forward => return forward(&model.valid(), pairs),
            Work::ForwardBackward => return forward_and_backward(model, pairs),
            Work::Edges | Work::Eap | Work::EapIg => return self.edges(model, setting),
            _ => {}
        }
        if let Some(nodes) = self.nodes() {
            return Ok(numbers(&activation_patching(
                &model.valid(),
                Question::new(pairs, &metric),
                &nodes,
                Direction::Denoising,
                execution,
            )?));
        }
        if let Some(receivers) = self.receivers(model.config()) {
            let (heads, policy) = ([NodeKind::all(Component::HeadZ)], FreezePolicy::path_patching());
            let found = path_patching(
                &model.valid(),
                Question::new(pairs, &metric),
                &heads,
                &receivers,
                policy,
                Direction::Noising,
                execution,
            )?;
            return Ok(numbers(&found.outcome));
        }
        if matches!(self, Work::IntegratedGradients | Work::IntegratedGradientsLean) {
            return integrated(model, pairs, setting.tolerance, execution);
        }
        let blocks =
            [Component::ResidPre, Component::ResidMid, Component::ResidPost, Component::AttnOut, Component::MlpOut];
        let has_mid = !model.config().parallel_block;
        let blocks = blocks.into_iter().filter(|block| has_mid || *block != Component::ResidMid);
        let mut nodes = vec![NodeKind::all(Component::HeadZ)];
        nodes.extend(blocks.map(NodeKind::by_position));
        nodes.extend(PARTS[..4].iter().copied().map(NodeKind::by_position));
        nodes.push(NodeKind { component: Component::HeadPattern, by: By::Cell });
        let outcome = match self {
            Work::AttributionLean => {
                attribution_patching(model, Question::new(pairs, &metric), &nodes, Direction::Denoising, execution)?
            }
            _ => {
                let paths = EdgeAttributionOptions { norm: NormJacobian::Frozen, reduce: Reduce::Mean };
                attention_attribution(model, Question::new(pairs, &metric), execution)?;
                attribution_patching_with_edges(
                    model,
                    Question::new(pairs, &metric),
                    &nodes,
                    paths,
                    Direction::Denoising,
                    execution,
                )?
                .0
            }
        };
        Ok(outcome.effects.iter().take(1).flat_map(Effects::mean).collect())
    }

    /// Returns the mean effect of each edge, noising, in the order of EAP-IG (Hanna et al. 2024).
    fn edges<B: AutodiffBackend>(self, model: &Transformer<B>, setting: &Setting) -> anyhow::Result<Vec<f32>> {
        let (pairs, execution) = (self.pairs(setting), &setting.execution);
        let metric = LogitDiff::new(pairs);
        let question = Question::new(pairs, &metric);
        let found = match self.gradients() {
            None => patch_all_edges(&model.valid(), question, Reduce::Mean, Direction::Noising, execution)?,
            Some(at) => attribute_all_edges(model, question, at, Reduce::Mean, Direction::Noising, execution)?,
        };
        let mean = found.mean();
        Ok(found.graph.places().map(|place| mean[place]).collect())
    }

    /// Returns the runs whose gradients estimate edges, if the work estimates edges.
    fn gradients(self) -> Option<GradientsAt> {
        match self {
            Work::Eap => Some(GradientsAt::Base),
            Work::EapIg => Some(GradientsAt::Inputs(EAP_IG)),
            _ => None,
        }
    }

    /// Returns a lower bound on the cost of the work.
    pub(crate) fn cost<B: AutodiffBackend>(self, model: &Transformer<B>, setting: &Setting) -> anyhow::Result<Cost> {
        let (pairs, execution) = (self.pairs(setting), &setting.execution);
        let (plain, metric) = (model.valid(), LogitDiff::new(pairs));
        let heads = [NodeKind::all(Component::HeadZ)];
        if let Some(receivers) = self.receivers(model.config()) {
            let policy = FreezePolicy::path_patching();
            return Ok(path_patching_cost(&plain, pairs, &metric, &heads, &receivers, policy, execution)?);
        }
        if let Some(nodes) = self.nodes() {
            return Ok(activation_patching_cost(&plain, pairs, &metric, &nodes, execution)?);
        }
        Ok(match self {
            Work::Edges => edge_patching_cost(&plain, pairs, &metric, execution)?,
            // Both runs, and a forward and backward pass at each step; EAP differentiates a run.
            Work::EapIg => forward_cost(&plain, pairs, &metric)? * (2.0 + 2.0 * EAP_IG.steps as f64),
            Work::Eap => forward_cost(&plain, pairs, &metric)? * 3.0,
            Work::Forward => forward_cost(&plain, pairs, &metric)?,
            Work::ForwardBackward => forward_cost(&plain, pairs, &metric)? * 2.0,
            Work::IntegratedGradients | Work::IntegratedGradientsLean => {
                let integral = IntegratedGradientsOptions::default();
                integrated_gradients_cost(model, pairs, &metric, &LINES, &integral, execution)?
            }
            // The demo's attention attribution and its gradients on the clean run take another
            // forward and backward pass.
            Work::Attribution => {
                attribution_patching_cost(model, pairs, &metric, execution)?
                    + forward_cost(&plain, pairs, &metric)? * 2.0
            }
            _ => attribution_patching_cost(model, pairs, &metric, execution)?,
        })
    }
}

/// Returns the logit difference of each clean prompt, `[prompt]`.
fn forward<B: Backend>(model: &Transformer<B>, pairs: &PromptPairs) -> anyhow::Result<Vec<f32>> {
    let logits = model.forward(clean_run(model, pairs)?, ())?;
    Ok(differences(logits, pairs).into_data().iter::<f32>().collect())
}

/// Runs a forward and a backward pass, and returns the logit difference of each clean prompt,
/// `[prompt]`.
fn forward_and_backward<B: AutodiffBackend>(model: &Transformer<B>, pairs: &PromptPairs) -> anyhow::Result<Vec<f32>> {
    let probed = |p: HookPoint| p.site().is_some_and(|site| matches!(site, Site::Q | Site::Z));
    let mut probes = GradientProbes::filtered(probed);
    let differences = differences(model.forward(clean_run(model, pairs)?, &mut probes)?, pairs);
    let gradients = probes.gradients(&differences.clone().sum());
    // On an asynchronous device, reading a result of the last step waits for all steps.
    let _ = gradients.block::<4>(0, Site::Q)?.sum().into_data();
    Ok(differences.inner().into_data().iter::<f32>().collect())
}

/// Returns the run of the clean prompts that computes only the logits of the metric.
fn clean_run<B: Backend>(model: &Transformer<B>, pairs: &PromptPairs) -> anyhow::Result<Run<B>> {
    let Reads { positions, columns } = LogitDiff::new(pairs).reads();
    Ok(Run::tokens(model.tokens(&pairs.clean())?)
        .with_readout(Readout { positions: ReadPositions::Each(positions), columns }))
}

/// Returns the logit differences, `[prompt]`, for logits `[prompt, 1, column]`.
fn differences<B: Backend>(logits: Tensor<B, 3>, pairs: &PromptPairs) -> Tensor<B, 1> {
    let [rows, _, columns] = logits.dims();
    let prompts: Vec<usize> = (0..rows).collect();
    LogitDiff::new(pairs).evaluate(logits.reshape([rows, columns]), &prompts)
}
