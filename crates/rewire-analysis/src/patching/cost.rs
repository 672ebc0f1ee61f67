//! Lower bounds on the cost of an analysis: the floating-point operations of its matmuls, and the
//! bytes that it must move.
//!
//! The bounds count the work that remains after three savings. A run resumes where a patch enters,
//! skips the positions before it, and computes only the logits that the metric reads. A cost
//! divided by a machine's rates is the least time that the analysis can take on that machine.

use std::iter::Sum;
use std::ops::{Add, Mul};

use burn::tensor::backend::Backend;
use rewire_model::{Differentiable, MlpKind, Transformer, TransformerConfig};
use rewire_tasks::{Metric, PromptPairs};
use rewire_tensor::Precision;

use crate::error::AnalysisError;
use crate::integrated::gradients::IntegratedGradientsOptions;
use crate::node::kind::NodeKind;
use crate::patching::plan::{Entry, EntryGroup, PlannedPass, plan};
use crate::run::batch::{PromptBatch, batches};
use crate::run::execution::Execution;
use crate::run::record::{check, check_pairs};

/// The cost of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations of matmuls: `2 n a b` for `[n, a]` times `[a, b]`.
    pub operations: f64,
    /// Bytes moved to and from a device's memory, if the steps between two matmuls cost nothing.
    ///
    /// Each pass moves the weights of its blocks once. Each row of a pass moves the residual stream
    /// into and out of each block.
    pub bytes: f64,
}

impl Cost {
    /// Returns the least time in seconds on a device that does `rate` operations per second and
    /// moves `bandwidth` bytes per second.
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

/// The properties of a model that determine costs.
#[derive(Clone, Copy)]
pub(crate) struct Costs<'a> {
    pub(crate) config: &'a TransformerConfig,
    pub(crate) precision: Precision,
}

impl<'a> Costs<'a> {
    pub(crate) fn of<B: Backend>(model: &'a Transformer<B>) -> Self {
        Self { config: model.config(), precision: model.precision() }
    }

    /// Returns the cost of an unpatched run on a prompt batch, from position `first` on.
    pub(crate) fn whole_run(self, batch: &PromptBatch, first: usize) -> Cost {
        self.pass(&PlannedPass::of_one_entry(Entry::Pre(0), first, 1), batch)
    }

    /// Returns the cost of a pass: each row runs from its entry to the logits that the metric
    /// reads.
    pub(crate) fn pass(self, pass: &PlannedPass, batch: &PromptBatch) -> Cost {
        let config = self.config;
        let width = batch.pairs.width();
        let seen: usize = (pass.first..width).map(|position| position + 1).sum();
        // The sum over the positions that the metric reads, as a mean over prompts.
        let read = batch.all_reads().iter().map(|p| p + 1).sum::<usize>() as f64 / batch.prompts.len() as f64;
        let reads = batch.reads_per_prompt() as f64;
        let computed = (width - pass.first) as f64;
        let d_shared = config.n_key_value_heads() * config.d_head;
        let [d_model, d_heads, d_shared, d_mlp] =
            [config.d_model, config.n_heads * config.d_head, d_shared, config.d_mlp].map(|d| d as f64);
        let maps = mlp_maps(config);
        let qkv_whole = 2.0 * d_model * (d_heads + 2.0 * d_shared) * computed;
        let qkv_read = 2.0 * d_model * (2.0 * d_shared * computed + d_heads * reads);
        let out = 2.0 * d_heads * d_model;
        let mlp = 2.0 * maps * d_model * d_mlp;
        // The terms with 4 d_heads are attention: scores and mixing.
        let whole = qkv_whole + 4.0 * d_heads * seen as f64 + (out + mlp) * computed;
        let last = qkv_read + 4.0 * d_heads * read + out * reads + mlp * reads;
        let columns = batch.columns(config) as f64;
        let rows = |variants: usize| (variants * batch.prompts.len()) as f64;
        // A pass reads weights once for all rows; each row has its own residual stream.
        let mut numbers = d_model * columns;
        let mut operations = rows(pass.variants()) * 2.0 * d_model * columns * reads;
        for layer in 0..config.n_layers {
            let is_last = layer + 1 == config.n_layers;
            let by = |depth: usize| {
                rows(pass.parts.iter().filter(|p| p.entry.depth() <= depth).map(EntryGroup::variants).sum::<usize>())
            };
            let (from_start, from_mid) = (by(2 * layer), by(2 * layer + 1));
            operations += from_start * if is_last { last } else { whole };
            operations += (from_mid - from_start) * mlp * if is_last { reads } else { computed };
            numbers += 2.0 * from_mid * computed * d_model;
            numbers += if from_start > 0.0 { 2.0 * d_model * (d_heads + d_shared) } else { 0.0 };
            numbers += if from_mid > 0.0 { maps * d_model * d_mlp } else { 0.0 };
        }
        Cost { operations, bytes: numbers * self.precision.bytes() as f64 }
    }
}

/// Returns the number of matrices `[d_model, d_mlp]` in an MLP.
pub(crate) fn mlp_maps(config: &TransformerConfig) -> f64 {
    match config.mlp {
        MlpKind::Plain => 2.0,
        MlpKind::Gated => 3.0,
    }
}

/// Returns the cost of one run of the clean prompts, up to the logits that the metric reads.
///
/// # Errors
/// Returns an [`AnalysisError`] for pairs that the model cannot run.
pub fn forward_cost<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
) -> Result<Cost, AnalysisError> {
    check_pairs(model, pairs)?;
    let of_batch = |batch: &PromptBatch| Costs::of(model).whole_run(batch, 0);
    Ok(batches(pairs, metric, pairs.len())?.iter().map(|batch| of_batch(&batch)).sum())
}

/// Returns the least cost of [`activation_patching`](crate::patching::engine::activation_patching):
/// the two runs, and every patch.
///
/// # Errors
/// Returns the errors of [`activation_patching`](crate::patching::engine::activation_patching).
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

/// Returns the least cost of
/// [`attribution_patching`](crate::attribution::nodes::attribution_patching): two runs and one
/// backward pass, from the first different position on.
///
/// A backward pass counts as one forward pass. That count would be exact if weights had no
/// gradients and each matmul of attention had one factor with a gradient.
///
/// # Errors
/// Returns the errors of [`attribution_patching`](crate::attribution::nodes::attribution_patching).
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

/// Returns the least cost of
/// [`integrated_gradients`](crate::integrated::gradients::integrated_gradients) for all nodes of
/// each layer together, towards the corrupted run.
///
/// The cost counts the two runs. For each line it adds one run and one backward pass per quadrature
/// node, and one run per end of the line. It assumes that no line needs more quadrature nodes than
/// the options set.
///
/// # Errors
/// Returns the errors of
/// [`integrated_gradients`](crate::integrated::gradients::integrated_gradients).
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
