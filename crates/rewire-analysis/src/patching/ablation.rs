//! Ablation: how the clean run's metric changes when nodes are removed from the run.

use burn::tensor::backend::Backend;
use rewire_model::Transformer;
use rewire_tasks::Metric;

use crate::effects::{Baselines, Effects, Method, Outcome};
use crate::error::AnalysisError;
use crate::node::kind::{Node, NodeKind, Positions};
use crate::patching::engine::{SweepTarget, sweep};
use crate::patching::groups::{GroupOutcome, replace_groups};
use crate::run::execution::Execution;
use crate::run::intervention::Intervention;
use crate::run::question::{Direction, Question, Scale};

/// Returns the change of the clean run's metric when each node of the given kinds is replaced.
///
/// `intervention` gives the replacement: zero, a mean
/// ([`mean_activations`](crate::run::means::mean_activations)), the node's activation on the
/// corrupted prompt, or a given activation. The effects are exact. [`Outcome::after`] returns the
/// metric itself.
///
/// # Errors
/// Returns the errors of [`activation_patching`](crate::patching::engine::activation_patching), and
/// [`AnalysisError::GivenShape`] if a given activation has the wrong shape.
pub fn ablation<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    intervention: &Intervention<B>,
    execution: &Execution,
) -> Result<Outcome, AnalysisError> {
    let target = SweepTarget { direction: Direction::Noising, intervention, only: None };
    Ok(Outcome { method: Method::Ablation, ..sweep(model, question, nodes, target, execution)? })
}

/// Returns the change of the clean run's metric when each set of nodes is removed together.
///
/// # Errors
/// Returns the errors of [`ablation`] and [`patch_groups`](crate::patching::groups::patch_groups),
/// and [`AnalysisError::NodeTwice`] if two nodes of a set overlap.
pub fn ablate_groups<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    groups: &[Vec<Node>],
    intervention: &Intervention<B>,
    execution: &Execution,
) -> Result<GroupOutcome, AnalysisError> {
    groups.iter().try_for_each(|group| check_no_node_twice(group))?;
    replace_groups(model, question, groups, intervention, Direction::Noising, execution)
}

/// Refuses a set that names a node, or a part of a node, twice.
pub(crate) fn check_no_node_twice(group: &[Node]) -> Result<(), AnalysisError> {
    let twice = group.iter().enumerate().find(|(i, node)| group[..*i].iter().any(|other| overlap(node, other)));
    match twice {
        Some((_, node)) => Err(AnalysisError::NodeTwice { node: node.to_string() }),
        None => Ok(()),
    }
}

/// Returns whether two nodes share at least one number of an activation.
fn overlap(a: &Node, b: &Node) -> bool {
    let units = a.unit.is_none() || b.unit.is_none() || a.unit == b.unit;
    let positions = match (&a.positions, &b.positions) {
        (Positions::All, _) | (_, Positions::All) => true,
        (Positions::Cell { .. }, Positions::Cell { .. }) => a.positions == b.positions,
        (Positions::Each(of_a), _) => (0..of_a.len()).any(|p| a.positions.position(p) == b.positions.position(p)),
        (_, Positions::Each(of_b)) => (0..of_b.len()).any(|p| a.positions.position(p) == b.positions.position(p)),
        _ => a.positions.position(0) == b.positions.position(0),
    };
    a.point() == b.point() && units && positions
}

impl Outcome {
    /// Returns the metric after each node was replaced, per prompt, for activation patching and
    /// ablation.
    ///
    /// The values are on this outcome's effect scale. On the normalized scale, 0 is the mean over
    /// the corrupted prompts and 1 is the mean over the clean prompts.
    #[must_use]
    pub fn after(&self) -> Vec<Effects> {
        let Baselines { clean, corrupted } = &self.baselines;
        let base = if self.direction == Direction::Noising { clean } else { corrupted };
        let [clean_mean, corrupted_mean] = self.baselines.means();
        let in_unit = |metric: f32| match self.scale {
            Scale::Metric => f64::from(metric),
            Scale::Normalized => (f64::from(metric) - corrupted_mean) / (clean_mean - corrupted_mean),
        };
        let after = |effects: &Effects| {
            let mut after = effects.clone();
            for (mut of_prompt, metric) in after.values.outer_iter_mut().zip(base) {
                of_prompt.mapv_inplace(|change| (in_unit(*metric) + f64::from(change)) as f32);
            }
            after
        };
        self.effects.iter().map(after).collect()
    }
}
