//! Interpolation curves: the metric along the straight line from a node's clean activation to
//! another activation, and beyond.

use std::ops::Range;

use burn::tensor::backend::Backend;
use ndarray::Array3;
use rewire_model::Transformer;
use rewire_tasks::{Metric, PromptPairs};

use crate::error::AnalysisError;
use crate::integrated::line::{Ends, Moved, check_linear};
use crate::node::kind::{Node, NodeKind};
use crate::patching::groups::check_groups;
use crate::patching::plan::at_once;
use crate::run::execution::Execution;
use crate::run::finite::check_changed;
use crate::run::fit::{MemoryLimiter, catch_device_faults};
use crate::run::intervention::{Intervention, batches_for};
use crate::run::transfer::to_vec;
use crate::run::workers;

/// The metric along a line of activations, for each of some nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// Places on the lines: 0 is the clean activation, 1 the other end. Places outside 0 to 1
    /// extrapolate.
    pub places: Vec<f64>,
    /// The metric itself, not its change, `[prompt, node, place]`.
    pub values: Array3<f32>,
}

impl Curves {
    /// Returns one node's curve as a mean over prompts.
    #[must_use]
    pub fn mean(&self, node: usize) -> Vec<f32> {
        let prompts = self.values.shape()[0];
        let at = |place| (0..prompts).map(|p| f64::from(self.values[[p, node, place]])).sum::<f64>() / prompts as f64;
        (0..self.places.len()).map(|place| at(place) as f32).collect()
    }
}

/// Returns the metric of the clean run with one node's activation moved to each of `places` on its
/// line.
///
/// Place 0 is the node's clean activation and place 1 the activation of `end`; `places` may lie
/// outside 0 to 1. Everything after the node is recomputed. Nodes must be added to the residual
/// stream. [`Intervention::Zero`] means for neurons what
/// [`IntegratedGradientsOptions::baseline`](crate::integrated::IntegratedGradientsOptions)
/// says.
///
/// Uses `prompt_batch`, `token_budget`, `workers`, `on_reduced` and `progress` of [`Execution`].
/// Stores nothing in [`Execution::checkpoint`].
///
/// # Errors
/// [`AnalysisError`] if the model lacks a node, if a node is not added to the residual stream, or
/// if the shape of `end` does not match.
pub fn interpolation_curves<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    nodes: &[Node],
    places: &[f64],
    end: &Intervention<B>,
    execution: &Execution,
) -> Result<Curves, AnalysisError> {
    let groups: Vec<Vec<Node>> = nodes.iter().map(|node| vec![node.clone()]).collect();
    check_groups(model, pairs, &groups)?;
    let kinds: Vec<NodeKind> = nodes.iter().map(|node| NodeKind::all(node.component)).collect();
    kinds.iter().try_for_each(|kind| check_linear(*kind))?;
    catch_device_faults::<B, _>(&model.device(), || {
        let mut values = Array3::zeros((pairs.len(), nodes.len(), places.len()));
        let (mut done, total) = (0, pairs.len() * nodes.len());
        (execution.progress)(done, total);
        for batch in batches_for(end, pairs, metric, execution.prompt_batch)?.iter() {
            let ends = Ends::new(model, metric, &batch, &kinds, end)?;
            let (from, n_prompts) = (batch.prompts[0], batch.prompts.len());
            let at_once = at_once(model.config(), &batch, ends.first(), execution.token_budget);
            let limiter = MemoryLimiter::new(model, &batch, execution, "places of a line in one batch");
            workers::run(
                nodes.len(),
                execution.workers::<B>(&model.device()),
                |number| {
                    let Node { layer, component, unit, positions } = &nodes[number];
                    let positions = &positions.of_prompts(from, n_prompts);
                    let moved = Moved { component: *component, layer: *layer, unit: *unit, positions };
                    let line = ends.line(moved)?;
                    let size = batch.size_from(ends.first());
                    let some = |some: Range<usize>| Ok(to_vec(ends.metric_at(&line, &places[some])?));
                    let mut metrics = Vec::with_capacity(places.len() * n_prompts);
                    for from in (0..places.len()).step_by(at_once) {
                        metrics.extend(limiter.run(from..places.len().min(from + at_once), size, some)?);
                    }
                    check_changed(metric.name(), &batch.prompts, &metrics, |_| {
                        format!("{} moved along its line", nodes[number])
                    })?;
                    Ok::<_, AnalysisError>(metrics)
                },
                |node, metrics| {
                    for (row, metric) in metrics.into_iter().enumerate() {
                        values[[from + row % n_prompts, node, row / n_prompts]] = metric;
                    }
                    done += n_prompts;
                    (execution.progress)(done, total);
                    Ok(())
                },
            )?;
        }
        Ok(Curves { places: places.to_vec(), values })
    })
}
