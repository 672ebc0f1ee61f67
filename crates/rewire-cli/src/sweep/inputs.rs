//! The inputs of a sweep.

use rewire_analysis::edges::Edge;
use rewire_analysis::node::NodeKind;
use rewire_tasks::PromptPairs;

use super::single::SingleNodes;

/// The inputs of a sweep. Every method has the same.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// The prompt pairs.
    pub(super) pairs: &'a PromptPairs,
    /// The kinds of nodes to patch; for single nodes, their kinds.
    pub(super) nodes: &'a [NodeKind],
    /// The single nodes to patch, in place of all nodes of the kinds.
    pub(super) single: Option<&'a SingleNodes>,
    /// The edges to patch, in place of all edges.
    pub(super) edges: Option<&'a [Edge]>,
    /// The prompts that means are taken over; empty if no mean is used.
    pub(super) reference: &'a [Vec<u32>],
}
