//! Screen, then verify: attribution ranks all nodes, the highest ranked nodes are patched exactly,
//! and the skipped nodes are reported.

use crate::node::index::NodeIndex;
use std::collections::BTreeSet;

use burn::module::AutodiffModule;
use rewire_model::{Differentiable, Transformer};
use rewire_tasks::Metric;

use crate::attribution::estimator::Estimator;
use crate::attribution::nodes::attribution_patching_by;
use crate::effects::Outcome;
use crate::error::AnalysisError;
use crate::node::index::count;
use crate::node::kind::NodeKind;
use crate::patching::engine::{SweepTarget, sweep};
use crate::run::execution::Execution;
use crate::run::question::{Direction, Question};
use crate::run::record::check;

/// The nodes or edges to patch exactly after a ranking by estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// This many, those of largest estimate.
    Largest(usize),
    /// All.
    All,
}

impl Verify {
    /// Returns how many of `n` are patched.
    pub(crate) fn among(self, n: usize) -> Result<usize, AnalysisError> {
        match self {
            Verify::All => Ok(n),
            Verify::Largest(0) => Err(AnalysisError::NoNodes),
            Verify::Largest(k) if k > n => Err(AnalysisError::TooManyNodes { k, nodes: n }),
            Verify::Largest(k) => Ok(k),
        }
    }
}

/// Attribution of all nodes, and exact effects of the highest ranked nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Screened {
    /// The attribution of every node.
    pub attribution: Outcome,
    /// The exact effects of the verified nodes; NaN for skipped nodes.
    pub exact: Outcome,
    /// The verified nodes, sorted by absolute mean attribution, largest first.
    pub verified: Vec<NodeIndex>,
    /// Number of skipped nodes; their exact effects are not known.
    pub skipped: usize,
    /// The skipped node with the largest absolute mean attribution, and that mean attribution.
    ///
    /// The screen misses a larger node only if the estimate of that node is wrong. `None` if
    /// nothing was skipped.
    pub largest_skipped: Option<(NodeIndex, f32)>,
}

/// Ranks the nodes by absolute mean attribution and patches the first `k` exactly.
///
/// The ranking is an estimate: a node with a small estimate can have a large effect. [`Screened`]
/// reports the number of skipped nodes and their largest estimate.
///
/// # Errors
/// Returns the errors of [`attribution_patching`](crate::attribution::attribution_patching),
/// [`AnalysisError::NoNodes`] if `k` is 0, and [`AnalysisError::TooManyNodes`] if there are fewer
/// than `k` nodes.
pub fn screen_then_verify<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    k: usize,
    direction: Direction,
    execution: &Execution,
) -> Result<Screened, AnalysisError> {
    let estimator = Estimator::default();
    screen_then_verify_by(model, question, nodes, estimator, Verify::Largest(k), direction, execution)
}

/// Returns [`screen_then_verify`] with a ranking by another estimator.
///
/// # Errors
/// As [`screen_then_verify`] and
/// [`attribution_patching_by`](crate::attribution::attribution_patching_by).
pub fn screen_then_verify_by<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    estimator: Estimator,
    verify: Verify,
    direction: Direction,
    execution: &Execution,
) -> Result<Screened, AnalysisError> {
    check(model, question.pairs, nodes)?;
    let n_nodes: usize = nodes.iter().map(|kind| count(*kind, model.config(), question.pairs.width())).sum();
    let k = verify.among(n_nodes)?;
    let quiet = Execution { progress: &|_, _| {}, ..*execution };
    let attribution = attribution_patching_by(model, question, nodes, estimator, direction, &quiet)?;
    let mut ranked: Vec<(NodeIndex, f32)> = Vec::new();
    for (kind, effects) in attribution.effects.iter().enumerate() {
        let mean = effects.mean();
        let place = |index: ndarray::IxDyn| NodeIndex { kind, index: ndarray::Dimension::slice(&index).to_vec() };
        let nodes = mean.indexed_iter().map(|(index, value)| (place(index), *value));
        ranked.extend(nodes.filter(|(place, _)| effects.kind.has(&place.index)));
    }
    // The sort is stable, so ties have the same order in every run.
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
