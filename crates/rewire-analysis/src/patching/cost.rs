//! The least that an analysis costs: the floating-point operations of its products, and the bytes that must be moved for them.
//!
//! What is left after resuming where a patch enters, skipping the positions before it, and reading only what the metric reads. Divided by
//! a machine's rates it is the least time that the analysis can take there.

use std::iter::Sum;
use std::ops::{Add, Mul};

use burn::tensor::backend::Backend;
use rewire_model::{Differentiable, Transformer, TransformerConfig};
use rewire_tasks::{Metric, PromptPairs};
use rewire_tensor::Precision;

use crate::error::AnalysisError;
use crate::integrated::gradients::IntegratedGradientsOptions;
use crate::node::kind::NodeKind;
use crate::patching::plan::{Entry, EntryGroup, PlannedPass, plan};
use crate::run::batch::{PromptBatch, batches};
use crate::run::execution::Execution;
use crate::run::record::{check, check_pairs};

/// What something costs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations of products: of `[n, a]` and `[a, b]`, `2 n a b`.
    pub operations: f64,
    /// Bytes that come from and go to a device's memory if every step between two products cost nothing: of each pass the weights of its
    /// blocks, once, and of each of its rows the residual stream in and out of each block.
    pub bytes: f64,
}

impl Cost {
    /// The least time, in seconds, on a device that does `rate` operations a second and moves `bandwidth` bytes a second.
    #[must_use]
    pub fn seconds(self, rate: f64, bandwidth: f64) -> f64 {
        (self.operations / rate).max(self.bytes / bandwidth)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { operations: self.operations + other.operations, bytes: self.bytes + other.bytes }
    }
}

impl Mul<f64> for Cost {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { operations: self.operations * times, bytes: self.bytes * times }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// What costs are reckoned for.
#[derive(Clone, Copy)]
pub(crate) struct Costs<'a> {
    pub(crate) config: &'a TransformerConfig,
    pub(crate) precision: Precision,
}

impl<'a> Costs<'a> {
    pub(crate) fn of<B: Backend>(model: &'a Transformer<B>) -> Self {
        Self { config: model.config(), precision: model.precision() }
    }

    /// An unpatched run of a portion from `first` on.
    pub(crate) fn whole_run(self, batch: &PromptBatch, first: usize) -> Cost {
        self.pass(&PlannedPass::of_one_entry(Entry::Pre(0), first, 1), batch)
    }

    /// What the rows of a pass need from where they enter to the logits that are read.
    pub(crate) fn pass(self, pass: &PlannedPass, batch: &PromptBatch) -> Cost {
        let config = self.config;
        let width = batch.pairs.width();
        let seen: usize = (pass.first..width).map(|position| position + 1).sum();
        let read = batch.readout_positions().iter().map(|p| p + 1).sum::<usize>() as f64 / batch.prompts.len() as f64;
        let computed = (width - pass.first) as f64;
        let [d_model, d_heads, d_mlp] =
            [config.d_model, config.n_heads * config.d_head, config.d_mlp].map(|d| d as f64);
        let qkv_whole = 2.0 * d_model * 3.0 * d_heads * computed;
        let qkv_read = 2.0 * d_model * d_heads * (2.0 * computed + 1.0);
        let out = 2.0 * d_heads * d_model;
        let mlp = 4.0 * d_model * d_mlp;
        // Attention is scores and mixing.
        let whole = qkv_whole + 4.0 * d_heads * seen as f64 + (out + mlp) * computed;
        let last = qkv_read + 4.0 * d_heads * read + out + mlp;
        let columns = batch.columns(config) as f64;
        let rows = |variants: usize| (variants * batch.prompts.len()) as f64;
        // Weights are read once, whoever needs them; the stream is each row's own.
        let mut numbers = d_model * columns;
        let mut operations = rows(pass.variants()) * 2.0 * d_model * columns;
        for layer in 0..config.n_layers {
            let is_last = layer + 1 == config.n_layers;
            let by = |depth: usize| {
                rows(pass.parts.iter().filter(|p| p.entry.depth() <= depth).map(EntryGroup::variants).sum::<usize>())
            };
            let (from_start, from_mid) = (by(2 * layer), by(2 * layer + 1));
            operations += from_start * if is_last { last } else { whole };
            operations += (from_mid - from_start) * mlp * if is_last { 1.0 } else { computed };
            numbers += 2.0 * from_mid * computed * d_model;
            numbers += if from_start > 0.0 { 4.0 * d_model * d_heads } else { 0.0 };
            numbers += if from_mid > 0.0 { 2.0 * d_model * d_mlp } else { 0.0 };
        }
        Cost { operations, bytes: numbers * self.precision.bytes() as f64 }
    }
}

/// One run of the clean prompts to the logits that the metric reads.
///
/// # Errors
/// [`AnalysisError`] for pairs that the model cannot run.
pub fn forward_cost<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
) -> Result<Cost, AnalysisError> {
    check_pairs(model, pairs)?;
    let of_batch = |batch: &PromptBatch| Costs::of(model).whole_run(batch, 0);
    Ok(batches(pairs, metric, pairs.len())?.iter().map(|batch| of_batch(&batch)).sum())
}

/// The least cost of [`activation_patching`](crate::patching::engine::activation_patching): the two runs, and every patch.
///
/// # Errors
/// As [`activation_patching`](crate::patching::engine::activation_patching).
pub fn activation_patching_cost<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    nodes: &[NodeKind],
    execution: &Execution,
) -> Result<Cost, AnalysisError> {
    check(model, pairs, nodes)?;
    let costs = Costs::of(model);
    let of_batch = |batch: &PromptBatch| {
        let passes =
            plan(nodes, model.config(), batch, None, execution.token_budget, execution.layers::<B>(&model.device()));
        costs.whole_run(batch, 0) * 2.0 + passes.iter().map(|pass| costs.pass(pass, batch)).sum()
    };
    Ok(batches(pairs, metric, execution.prompt_batch)?.iter().map(|batch| of_batch(&batch)).sum())
}

/// The least cost of [`attribution_patching`](crate::attribution::nodes::attribution_patching): two runs and one backward pass from the first different
/// position on. A backward pass is taken to cost what the run does, as it would if weights had no gradients and attention's
/// products one factor.
///
/// # Errors
/// As [`attribution_patching`](crate::attribution::nodes::attribution_patching).
pub fn attribution_patching_cost<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    execution: &Execution,
) -> Result<Cost, AnalysisError> {
    check_pairs(model, pairs)?;
    let size = execution.gradient_batch_size::<B>(pairs.len(), &model.device());
    let of_batch = |batch: &PromptBatch| Costs::of(model).whole_run(batch, batch.first_difference) * 3.0;
    Ok(batches(pairs, metric, size)?.iter().map(|batch| of_batch(&batch)).sum())
}

/// The least cost of [`integrated_gradients`](crate::integrated::gradients::integrated_gradients) of all nodes of each layer together, towards the corrupted run,
/// if no line needs more nodes than the quadrature has: the two runs, and of each line a run and a backward pass for each node and a
/// run for each end.
///
/// # Errors
/// As [`integrated_gradients`](crate::integrated::gradients::integrated_gradients).
pub fn integrated_gradients_cost<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    nodes: &[NodeKind],
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
    execution: &Execution,
) -> Result<Cost, AnalysisError> {
    check(model, pairs, nodes)?;
    let costs = Costs::of(model);
    let nodes_of_line = integral.quadrature.nodes()?.len();
    let size = execution.gradient_batch_size::<B>(pairs.len(), &model.device());
    let of_batch = |batch: &PromptBatch| {
        let of_line = |kind: &NodeKind, layer: usize| {
            let entry = Entry::of(kind.component, layer, model.config());
            let runs = |n: usize| costs.pass(&PlannedPass::of_one_entry(entry, batch.first_difference, n), batch);
            runs(nodes_of_line) * 2.0 + runs(2)
        };
        let lines = nodes.iter().flat_map(|kind| (0..model.config().n_layers).map(move |layer| of_line(kind, layer)));
        costs.whole_run(batch, 0) * 2.0 + lines.sum()
    };
    Ok(batches(pairs, metric, size)?.iter().map(|batch| of_batch(&batch)).sum())
}
