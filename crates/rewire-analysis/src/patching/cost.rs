//! Lower bounds on the cost of an analysis: the floating-point operations of its matmuls, and the
//! bytes that it must move.
//!
//! The bounds count the work that remains after three savings. A run resumes where a patch enters,
//! skips the positions before it, and computes only the logits that the metric reads. A cost
//! divided by a machine's rates is the least time that the analysis can take on that machine.

use burn::tensor::backend::Backend;
use rewire_model::{Differentiable, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::error::AnalysisError;
use crate::integrated::gradients::IntegratedGradientsOptions;
use crate::node::kind::NodeKind;
use crate::patching::pass_cost::Costs;
use crate::patching::plan::plan;
use crate::run::batch::{PromptBatch, batches};
use crate::run::cost::Cost;
use crate::run::execution::Execution;
use crate::run::record::{check, check_pairs};

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
        let of_line = |kind: &NodeKind, layer: usize| costs.line(*kind, layer, batch, nodes_of_line);
        let lines = nodes.iter().flat_map(|kind| (0..model.config().n_layers).map(move |layer| of_line(kind, layer)));
        costs.whole_run(batch, 0) * 2.0 + lines.sum()
    };
    Ok(batches(pairs, metric, size)?.iter().map(|batch| of_batch(&batch)).sum())
}
