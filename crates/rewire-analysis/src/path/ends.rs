//! The two ends of a path: what sends, and what receives.

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node};
use crate::path::receiver::Receiver;
use crate::run::record::check_pairs;
use burn::tensor::backend::Backend;
use rewire_model::Transformer;
use rewire_tasks::PromptPairs;
/// Refuses what sends nothing, receivers that do not exist, and paths without either end.
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

/// Senders that are taken from the source run together, and receivers that are set together to what reaches them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// What sends.
    pub senders: Vec<Node>,
    /// What receives.
    pub receivers: Vec<Receiver>,
}
