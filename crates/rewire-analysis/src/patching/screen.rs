//! Screen, then verify: attribution ranks all nodes, the largest are patched exactly, and what was skipped is told.

use crate::node::index::NodeIndex;
use std::collections::BTreeSet;

use burn::module::AutodiffModule;
use rewire_model::{Differentiable, Transformer};
use rewire_tasks::Metric;

use crate::attribution::nodes::attribution_patching;
use crate::effects::Outcome;
use crate::error::AnalysisError;
use crate::node::index::count;
use crate::node::kind::NodeKind;
use crate::patching::engine::{SweepTarget, sweep};
use crate::run::execution::Execution;
use crate::run::question::{Direction, Question};
use crate::run::record::check;

/// Nodes ranked by attribution, the first of them patched.
#[derive(Debug, Clone, PartialEq)]
pub struct Screened {
    /// The attribution of every node.
    pub attribution: Outcome,
    /// The exact effects of the verified nodes; NaN for those that were skipped.
    pub exact: Outcome,
    /// The verified nodes, the largest mean attribution (by size) first.
    pub verified: Vec<NodeIndex>,
    /// How many nodes were skipped: their exact effect is not known.
    pub skipped: usize,
    /// The skipped node of largest attribution and its mean attribution: what the screen would have had to be wrong about to
    /// miss something. `None` if nothing was skipped.
    pub largest_skipped: Option<(NodeIndex, f32)>,
}

/// Ranks the nodes by the size of their mean attribution and patches the first `k`, exactly. The ranking is an estimate: a
/// node that it holds for small may be large, and [`Screened`] says how many there are and how large the estimate of the
/// largest of them is.
///
/// # Errors
/// As [`attribution_patching`], and [`AnalysisError::TooManyNodes`] where there are fewer than `k`.
pub fn screen_then_verify<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    k: usize,
    direction: Direction,
    execution: &Execution,
) -> Result<Screened, AnalysisError> {
    check(model, question.pairs, nodes)?;
    if k == 0 {
        return Err(AnalysisError::NoNodes);
    }
    let n_nodes = nodes.iter().map(|kind| count(*kind, model.config(), question.pairs.width())).sum();
    if k > n_nodes {
        return Err(AnalysisError::TooManyNodes { k, nodes: n_nodes });
    }
    let quiet = Execution { progress: &|_, _| {}, ..*execution };
    let attribution = attribution_patching(model, question, nodes, direction, &quiet)?;
    let mut ranked: Vec<(NodeIndex, f32)> = Vec::new();
    for (kind, effects) in attribution.effects.iter().enumerate() {
        let mean = effects.mean();
        let place = |index: ndarray::IxDyn| NodeIndex { kind, index: ndarray::Dimension::slice(&index).to_vec() };
        let nodes = mean.indexed_iter().map(|(index, value)| (place(index), *value));
        ranked.extend(nodes.filter(|(place, _)| effects.kind.has(&place.index)));
    }
    // Sorting keeps the order of equals, so that ties fall the same way every time.
    ranked.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let largest_skipped = ranked.get(k).cloned();
    let verified: Vec<NodeIndex> = ranked.into_iter().take(k).map(|(place, _)| place).collect();
    let chosen: BTreeSet<NodeIndex> = verified.iter().cloned().collect();
    let exact = sweep(
        &model.valid(),
        question,
        nodes,
        SweepTarget { only: Some(&chosen), ..SweepTarget::resampled(direction) },
        execution,
    )?;
    Ok(Screened { attribution, exact, verified, skipped: n_nodes - k, largest_skipped })
}
