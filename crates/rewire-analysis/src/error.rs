//! Everything that an analysis can refuse.

use rewire_hooks::{CacheError, PatchError};
use rewire_model::ModelError;
use rewire_tasks::{NormalisationError, PairsError};

use crate::NodeKind;

/// Why an analysis was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The list of nodes is empty.
    #[error("no nodes were given")]
    NoNodes,
    /// A node that this model does not have.
    #[error("this model has no {node}: {reason}")]
    NoSuchNode {
        /// The node.
        node: NodeKind,
        /// Why not.
        reason: &'static str,
    },
    /// A node whose layer, head, neuron or position the model or the prompts do not have.
    #[error("there is no {node}: {what} {found} of {bound}, counted from 0")]
    OutsideModel {
        /// The node.
        node: String,
        /// What of it is outside.
        what: &'static str,
        /// The number given.
        found: usize,
        /// How many there are.
        bound: usize,
    },
    /// A node with a position a prompt, for another number of prompts.
    #[error("{node} has positions for {found} prompts, and there are {expected}")]
    PositionsOfOtherPairs {
        /// The node.
        node: String,
        /// Number of pairs.
        expected: usize,
        /// Number of positions.
        found: usize,
    },
    /// A group without nodes.
    #[error("group {group} (counted from 0) has no nodes")]
    EmptyGroup {
        /// Which group.
        group: usize,
    },
    /// More nodes were to be verified than there are.
    #[error("the {k} nodes of largest attribution were asked for, and there are {nodes}")]
    TooManyNodes {
        /// How many were asked for.
        k: usize,
        /// How many there are.
        nodes: usize,
    },
    /// Effects that are not of the same nodes.
    #[error("{exact} and {estimate} are not effects of the same nodes")]
    NotComparable {
        /// The one kind.
        exact: NodeKind,
        /// The other.
        estimate: NodeKind,
    },
    /// A finished part of the sweep could not be kept.
    #[error("a finished part of the sweep could not be kept: {0}")]
    Ledger(#[source] std::io::Error),
    /// A gradient method with a metric without gradient.
    #[error("the gradient of the metric `{metric}` is 0 wherever it exists; use activation patching")]
    NotDifferentiable {
        /// The metric.
        metric: &'static str,
    },
    /// A metric with another number of prompts than the pairs.
    #[error("the metric was made for {found} prompts, and there are {expected}")]
    MetricOfOtherPairs {
        /// Number of pairs.
        expected: usize,
        /// Number of prompts that the metric reads.
        found: usize,
    },
    /// A metric that reads a position that no prompt has.
    #[error("the metric reads position {position} of prompt {prompt}, and prompts have {width}, counted from 0")]
    ReadOutside {
        /// The prompt.
        prompt: usize,
        /// The position.
        position: usize,
        /// How many there are.
        width: usize,
    },
    /// The pairs cannot be run on this model.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// The effects cannot be normalised.
    #[error(transparent)]
    Normalisation(#[from] NormalisationError),
    /// The model could not be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An activation was not where it should be.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A patch was not applied.
    #[error(transparent)]
    Patch(#[from] PatchError),
}
