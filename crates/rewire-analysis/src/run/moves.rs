//! Finds activations that differ between the two runs of a pair, by tokens or by values.
//!
//! A patch that replaces an activation by an equal one changes nothing. Its effect is set to
//! exactly 0, because a run of another shape would leave a rounding error.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Axis as Dimension, IxDyn, Slice};
use rewire_hooks::{ActivationCache, Axis, CacheError, HookPoint};
use rewire_model::TransformerConfig;
use rewire_tensor::to_f32;
use std::collections::{BTreeMap, BTreeSet};

use crate::node::kind::{By, Node, NodeKind, Positions};
use crate::run::batch::PromptBatch;
use crate::run::transfer::to_vecs;

/// Sets the effects of nodes to exactly 0 if their patch cannot change the metric. `effects` is
/// `[prompt, ..]`, for the nodes of one kind in one layer.
pub(crate) fn clear(
    kind: NodeKind,
    layer: usize,
    batch: &PromptBatch,
    config: &TransformerConfig,
    mut effects: ArrayViewMutD<'_, f32>,
) {
    let matters = |prompt, positions: &Positions| batch.can_matter(prompt, kind.component, layer, config, positions);
    let whole = match kind.by {
        By::Marked => batch.pairs.marked_positions().map_or(Positions::All, |marks| Positions::Each(marks.to_vec())),
        _ => Positions::All,
    };
    let of_positions = kind.axes().iter().position(|axis| matches!(axis, Axis::Pos | Axis::Query));
    for (prompt, mut of_prompt) in effects.outer_iter_mut().enumerate() {
        let Some(axis) = of_positions else {
            if !matters(prompt, &whole) {
                of_prompt.fill(0.0);
            }
            continue;
        };
        for (position, mut at) in of_prompt.axis_iter_mut(Dimension(axis)).enumerate() {
            if !matters(prompt, &Positions::One(position)) {
                at.fill(0.0);
            }
        }
    }
}

/// Returns, for each group of nodes and each prompt of a batch, whether the patch can change the
/// metric. It can if an activation of the group differs between the base run and its replacement at
/// a position on which the metric depends. Both caches must hold the hook points of the groups at
/// all positions.
pub(crate) fn moving<B: Backend>(
    groups: &[Vec<Node>],
    batch: &PromptBatch,
    config: &TransformerConfig,
    base: &ActivationCache<B>,
    source: &ActivationCache<B>,
) -> Result<Vec<Vec<bool>>, CacheError> {
    let points: BTreeSet<HookPoint> = groups.iter().flatten().map(Node::point).collect();
    let size = |&at: &HookPoint| match at.axes().len() {
        4 => size_of_change::<B, 4>(at, base, source),
        _ => size_of_change::<B, 3>(at, base, source),
    };
    let (sizes, shapes): (Vec<_>, Vec<_>) =
        points.iter().map(size).collect::<Result<Vec<_>, CacheError>>()?.into_iter().unzip();
    let array = |(numbers, shape): (Vec<f32>, Vec<usize>)| {
        ArrayD::from_shape_vec(IxDyn(&shape), numbers).expect("the shape has as many numbers")
    };
    let sizes: BTreeMap<HookPoint, ArrayD<f32>> =
        points.iter().copied().zip(to_vecs(sizes).into_iter().zip(shapes).map(array)).collect();
    let moves = |group: &Vec<Node>, prompt: usize| {
        group.iter().any(|node| {
            batch.can_matter(prompt, node.component, node.layer, config, &node.positions)
                && differs(node, prompt, batch.last_read(prompt), sizes[&node.point()].view())
        })
    };
    let of_group = |group: &Vec<Node>| (0..batch.prompts.len()).map(|prompt| moves(group, prompt)).collect();
    Ok(groups.iter().map(of_group).collect())
}

/// Returns the absolute difference between source and base at a hook point, summed over the axes
/// that nodes never divide, and its shape.
fn size_of_change<B: Backend, const D: usize>(
    at: HookPoint,
    base: &ActivationCache<B>,
    source: &ActivationCache<B>,
) -> Result<(Tensor<B, 1>, Vec<usize>), CacheError> {
    let difference = to_f32(source.get::<D>(at)?) - to_f32(base.get(at)?);
    let axes = at.axes();
    let undivided = (1..D).filter(|&dim| matches!(axes[dim], Axis::DHead | Axis::DModel));
    let sizes = undivided.fold(difference.abs(), |sizes, dim| sizes.sum_dim(dim));
    let shape = sizes.dims();
    Ok((sizes.reshape([shape.iter().product::<usize>()]), shape.to_vec()))
}

/// Returns whether a node's activation differs in `prompt` at a position up to `read`, given the
/// sizes of the differences at its hook point.
fn differs(node: &Node, prompt: usize, read: usize, sizes: ArrayViewD<'_, f32>) -> bool {
    let axes = node.point().axes();
    let mut here = sizes;
    // From the last axis to the first, to keep the indices of the remaining axes.
    for (dim, axis) in axes.iter().enumerate().rev() {
        let one = match axis {
            Axis::Batch => Some(prompt),
            Axis::Head | Axis::DMlp => node.unit,
            Axis::Pos | Axis::Query => node.positions.position(prompt),
            Axis::Key => match node.positions {
                Positions::Cell { src, .. } => Some(src),
                _ => None,
            },
            _ => None,
        };
        match (one, axis) {
            (Some(at), _) => here.collapse_axis(Dimension(dim), at),
            (None, Axis::Pos | Axis::Query) => here.slice_axis_inplace(Dimension(dim), Slice::from(..=read)),
            (None, _) => {}
        }
    }
    // NaN counts as a difference.
    here.iter().any(|size| *size != 0.0)
}
