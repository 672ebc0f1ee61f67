//! Patches that replace activations in a whole run: the patches for groups of nodes, and the
//! literal sweep that the engine is compared with.

use std::collections::BTreeSet;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};
use ndarray::ArrayD;
use rewire_hooks::{ActivationCache, AnyMask, Axis, CacheError, Hook, HookPoint, Patch};
use rewire_model::{Run, Transformer};
use rewire_tasks::Metric;

use crate::error::AnalysisError;
use crate::node::index::{effect_index, positions_of, units};
use crate::node::kind::{Node, NodeKind, Positions, named};
use crate::run::batch::PromptBatch;
use crate::run::finite::{Watch, check_changed, check_run, the_metric};
use crate::run::intervention::Intervention;
use crate::run::question::Direction;
use crate::run::record::evaluate;
use crate::run::transfer::to_vec;

/// Builds a patch for a batch of copies of the prompts: in copy `i`, the nodes of `groups[i]` take
/// their activations from `source`. The run computes the positions from `first` on.
pub(crate) fn patch<B: Backend>(
    groups: &[&[Node]],
    source: &ActivationCache<B>,
    prompts: usize,
    first: usize,
    device: &B::Device,
) -> Result<Patch<B>, CacheError> {
    let points: BTreeSet<HookPoint> = groups.iter().copied().flatten().map(Node::point).collect();
    points.into_iter().try_fold(Patch::new(), |patch, at| {
        // Nodes at this point, by copy.
        let here: Vec<Vec<&Node>> =
            groups.iter().map(|group| group.iter().filter(|node| node.point() == at).collect()).collect();
        replace(patch, at, &here, source, [prompts, first], device)
    })
}

fn replace<B: Backend>(
    patch: Patch<B>,
    point: HookPoint,
    groups: &[Vec<&Node>],
    source: &ActivationCache<B>,
    [prompts, first]: [usize; 2],
    device: &B::Device,
) -> Result<Patch<B>, CacheError> {
    let axes = point.axes();
    let mut value = source.any(point)?.clone();
    if let Some(axis) = axes.iter().position(|a| matches!(a, Axis::Pos | Axis::Query)) {
        let len = value.dims()[axis];
        value = value.narrow(axis, first, len - first);
    }
    let value = value.repeat_dim(0, groups.len());
    let covered = |row: usize, index: &[usize]| {
        let (nodes, prompt) = (&groups[row / prompts], row % prompts);
        nodes.iter().any(|node| covers(node, prompt, axes, index, first))
    };
    // No node covers only a part of d_head or d_model. A mask of size 1 on these axes is enough,
    // and saves transfer to the device.
    let mut dims = value.dims();
    let undivided = axes.iter().zip(&mut dims).filter(|(axis, _)| matches!(axis, Axis::DHead | Axis::DModel));
    undivided.for_each(|(_, size)| *size = 1);
    let mask = AnyMask::of(&dims, device, |index| covered(index[0], index)).expand(&value.dims());
    Ok(patch.replace_where(point, value, mask))
}

/// Builds a mask that is true if `covered` holds for the row of the batch and the whole index.
pub(crate) fn mask<B: Backend, const D: usize>(
    dims: [usize; D],
    device: &B::Device,
    covered: impl Fn(usize, &[usize]) -> bool,
) -> Tensor<B, D, Bool> {
    AnyMask::of(&dims, device, |index| covered(index[0], index)).get().expect("as many dimensions as sizes")
}

/// Returns whether a node covers the number of its activation in `prompt`, at `index` along `axes`.
pub(crate) fn covers(node: &Node, prompt: usize, axes: &[Axis], index: &[usize], first: usize) -> bool {
    axes.iter().zip(index).skip(1).all(|(axis, &i)| match axis {
        Axis::Pos | Axis::Query => node.positions.position(prompt).is_none_or(|p| p == i + first),
        Axis::Key => !matches!(node.positions, Positions::Cell { src, .. } if src != i),
        Axis::Head | Axis::DMlp => node.unit.is_none_or(|unit| unit == i),
        _ => true,
    })
}

/// Runs activation patching as it is defined: one whole forward pass with all logits per group of
/// nodes, without reuse.
///
/// Returns the change of the metric, by group and prompt.
pub(crate) fn changes<B: Backend, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batch: &PromptBatch,
    groups: &[Vec<Node>],
    intervention: &Intervention<B>,
    direction: Direction,
) -> Result<Vec<Vec<f32>>, AnalysisError> {
    let [base, _] = batch.base_and_source(direction);
    let points: BTreeSet<HookPoint> = groups.iter().flatten().map(Node::point).collect();
    let source = intervention.source(model, metric, batch, direction, move |p| points.contains(&p))?.cache;
    let (base_tokens, base) = (model.tokens(&base)?, base);
    let unpatched = whole_metric(model, metric, batch, base_tokens.clone(), ())?;
    check_run(model, &the_metric(metric.name()), batch, &base, &unpatched)?;
    let change = |group: &Vec<Node>| {
        let mut patch = patch(&[group], &source, batch.prompts.len(), 0, &model.device())?;
        let metrics = whole_metric(model, metric, batch, base_tokens.clone(), &mut patch)?;
        patch.finish()?;
        check_changed(metric.name(), &batch.prompts, &metrics, |_| format!("{} replaced", named(group)))?;
        Ok(metrics.iter().zip(&unpatched).map(|(patched, unpatched)| patched - unpatched).collect())
    };
    groups.iter().map(change).collect()
}

/// Runs [`changes`] for every single node of these kinds and writes the results into `into`, one
/// array `[prompt, layer, ..]` per kind.
pub(crate) fn sweep<B: Backend, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batch: &PromptBatch,
    kinds: &[NodeKind],
    intervention: &Intervention<B>,
    direction: Direction,
    into: &mut [ArrayD<f32>],
) -> Result<(), AnalysisError> {
    let config = model.config();
    for (kind, into) in kinds.iter().zip(into) {
        let mut nodes = Vec::new();
        for layer in 0..config.n_layers {
            for unit in 0..units(*kind, config) {
                let unit = kind.unit_axis().map(|_| unit);
                let node = |positions| vec![Node { layer, component: kind.component, unit, positions }];
                nodes.extend(positions_of(*kind, &batch.pairs).into_iter().map(node));
            }
        }
        let changes = changes(model, metric, batch, &nodes, intervention, direction)?;
        for (node, changes) in nodes.iter().flatten().zip(changes) {
            for (prompt, change) in changes.into_iter().enumerate() {
                into[effect_index(prompt, node.layer, node.unit, &node.positions).as_slice()] = change;
            }
        }
    }
    Ok(())
}

/// Returns the metric of a run on whole prompts that computes all logits.
pub(crate) fn whole_metric<B: Backend, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batch: &PromptBatch,
    tokens: Tensor<B, 2, Int>,
    hook: impl Hook<B>,
) -> Result<Vec<f32>, AnalysisError> {
    let mut watch = Watch::new();
    let logits = model.forward(Run::tokens(tokens), (hook, &mut watch))?;
    let [n_rows, pos, d_vocab] = logits.dims();
    let device = logits.device();
    let index = |ids: Vec<usize>| {
        let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
        Tensor::<B, 1, Int>::from_data(ids.as_slice(), &device)
    };
    let per_prompt = batch.reads_per_prompt();
    let rows = batch.all_reads().iter().enumerate().map(|(i, position)| i / per_prompt * pos + position).collect();
    let mut read = logits.reshape([n_rows * pos, d_vocab]).select(0, index(rows));
    if let Some(columns) = &batch.readout.columns {
        read = read.select(1, index(columns.clone()));
    }
    let [rows, columns] = read.dims();
    Ok(to_vec(watch.mark(evaluate(metric, read.reshape([n_rows, rows / n_rows, columns]), &batch.prompts))))
}
