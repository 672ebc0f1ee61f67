//! Path patching from a few groups of senders instead of all nodes of a kind.

use burn::tensor::backend::Backend;
use rewire_model::Transformer;
use rewire_tasks::Metric;

use crate::error::AnalysisError;
use crate::node::kind::Node;
use crate::patching::groups::{GroupOutcome, check_group_effects};
use crate::path::followed::Ends;
use crate::path::paths::follow;
use crate::path::policy::FreezePolicy;
use crate::path::receiver::Receiver;
use crate::path::schedule::PathPair;
use crate::run::execution::Execution;
use crate::run::question::{Direction, Question};

/// The result of [`path_patch_groups`].
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPaths {
    /// Effects, one per group of senders; 0 for a group that reaches no receiver.
    pub outcome: GroupOutcome,
    /// Receivers that no group reaches, as in
    /// [`PathPatching::unreached`](crate::path::PathPatching::unreached).
    pub unreached: Vec<Receiver>,
}

/// Returns the effect of each group of senders along the paths to the receivers alone. The senders
/// of a group are patched together, and the receivers are updated together.
///
/// Effects are exact; signs and effect scale are as in
/// [`path_patching`](crate::path::path_patching).
///
/// # Errors
/// Returns the errors of [`path_patching`](crate::path::path_patching), and an error for an empty
/// group.
pub fn path_patch_groups<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    senders: &[Vec<Node>],
    receivers: &[Receiver],
    policy: FreezePolicy,
    direction: Direction,
    execution: &Execution,
) -> Result<GroupPaths, AnalysisError> {
    let paths: Vec<PathPair> = (0..senders.len()).map(|senders| PathPair::new(senders, 0)).collect();
    let to = [receivers.to_vec()];
    let ends = Ends { senders, receivers: &to, paths: &paths };
    let found = follow(model, question, ends, policy, direction, execution)?;
    let values = found.effects();
    check_group_effects(senders, &values)?;
    let unreached = found.unreached(receivers);
    let (metric, scale, baselines) = (question.metric.name(), question.scale, found.baselines);
    let outcome = GroupOutcome { direction, scale, metric, baselines, vanished: Vec::new(), values };
    Ok(GroupPaths { outcome, unreached })
}
