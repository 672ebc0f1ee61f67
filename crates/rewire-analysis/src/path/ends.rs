//! The two ends of a path: senders and receivers.

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node};
use crate::path::receiver::Receiver;
use crate::run::record::check_pairs;
use burn::tensor::backend::Backend;
use rewire_model::Transformer;
use rewire_tasks::PromptPairs;
/// Refuses senders that write nothing, receivers that do not exist, and paths without senders or
/// receivers.
pub(crate) fn check_ends<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    senders: &[Vec<Node>],
    receivers: &[Vec<Receiver>],
) -> Result<(), AnalysisError> {
    check_pairs(model, pairs)?;
    let config = model.config();
    if senders.is_empty() || senders.iter().any(Vec::is_empty) {
        return Err(AnalysisError::NoNodes);
    }
    if receivers.is_empty() || receivers.iter().any(Vec::is_empty) {
        return Err(AnalysisError::NoReceivers);
    }
    for node in senders.iter().flatten() {
        let writes =
            !matches!(node.component, Component::HeadQ | Component::HeadK | Component::HeadV | Component::HeadPattern);
        if !writes {
            return Err(AnalysisError::SendsNothing { node: node.to_string() });
        }
        node.check(config, pairs)?;
    }
    receivers.iter().flatten().try_for_each(|receiver| receiver.check(config, pairs))
}

/// Senders that take their activations from the source run together, and receivers that are updated
/// together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The senders.
    pub senders: Vec<Node>,
    /// The receivers.
    pub receivers: Vec<Receiver>,
}
