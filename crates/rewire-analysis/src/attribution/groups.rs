//! Attribution of groups of nodes: attribution is linear, so a group's effect is the sum of its
//! nodes' effects.

use std::collections::BTreeSet;

use ndarray::{Array2, ArrayViewD, Axis as Dimension};
use rewire_model::{Differentiable, Transformer};
use rewire_tasks::Metric;

use crate::attribution::nodes::attribution_patching;
use crate::error::AnalysisError;
use crate::node::kind::{By, Node, NodeKind, Positions};
use crate::patching::groups::{GroupOutcome, check_group_effects, check_groups};
use crate::run::execution::Execution;
use crate::run::question::{Direction, Question};

/// Returns the estimated effect of each group of nodes, from one backward pass: the sum of the
/// attributions of its nodes.
///
/// Compare it with [`patch_groups`](crate::patching::groups::patch_groups), which patches the nodes
/// of a group together. Both have the same signs and effect scale.
///
/// If a group names a node and a part of that node (an attention output and one of its heads), the
/// sum counts the part twice, though a joint patch moves it once. Name only one of the two.
///
/// # Errors
/// As [`patch_groups`](crate::patching::groups::patch_groups) and [`attribution_patching`].
pub fn attribute_groups<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    groups: &[Vec<Node>],
    direction: Direction,
    execution: &Execution,
) -> Result<GroupOutcome, AnalysisError> {
    let pairs = question.pairs;
    check_groups(model, pairs, groups)?;
    // Estimate each component at the finest division that a group needs; coarser nodes are sums.
    let kinds: BTreeSet<NodeKind> = groups.iter().flatten().map(finest).collect();
    let kinds: Vec<NodeKind> = kinds.into_iter().collect();
    let outcome = attribution_patching(model, question, &kinds, direction, execution)?;
    let estimate = |node: &Node, prompt: usize| -> f64 {
        let effects = outcome.effects.iter().find(|e| e.kind == finest(node));
        effects.map_or(0.0, |effects| {
            let of_layer = effects.values.index_axis(Dimension(0), prompt);
            sum(of_layer.index_axis(Dimension(0), node.layer), node, effects.kind, prompt)
        })
    };
    let values = Array2::from_shape_fn((pairs.len(), groups.len()), |(prompt, group)| {
        groups[group].iter().map(|node| estimate(node, prompt)).sum::<f64>() as f32
    });
    check_group_effects(groups, &values)?;
    let (direction, scale, metric) = (outcome.direction, outcome.scale, outcome.metric);
    let (baselines, vanished) = (outcome.baselines, outcome.vanished);
    Ok(GroupOutcome { direction, scale, metric, baselines, vanished, values })
}

/// Returns the finest kind of node that `node` is a sum of.
fn finest(node: &Node) -> NodeKind {
    let by = match node.positions {
        Positions::Cell { .. } => By::Cell,
        _ => By::Position,
    };
    NodeKind { component: node.component, by }
}

/// Sums the estimates of one kind in one layer, along the kind's axes, over the parts of `node`.
fn sum(mut estimates: ArrayViewD<'_, f32>, node: &Node, kind: NodeKind, prompt: usize) -> f64 {
    let src = match node.positions {
        Positions::Cell { src, .. } => Some(src),
        _ => None,
    };
    // The position axes come last: destination, then source.
    for at in src.into_iter().chain(node.positions.position(prompt)) {
        let last = Dimension(estimates.ndim() - 1);
        estimates = estimates.index_axis_move(last, at);
    }
    // The head or neuron axis comes first.
    if let Some(unit) = node.unit.filter(|_| kind.unit_axis().is_some()) {
        estimates = estimates.index_axis_move(Dimension(0), unit);
    }
    estimates.iter().map(|v| f64::from(*v)).sum()
}
