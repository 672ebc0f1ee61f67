//! The inputs of a sweep.

use rewire_analysis::node::NodeKind;
use rewire_tasks::PromptPairs;

/// The inputs of a sweep. Every method has the same.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// The prompt pairs.
    pub(super) pairs: &'a PromptPairs,
    /// The kinds of nodes to patch.
    pub(super) nodes: &'a [NodeKind],
    /// The prompts that means are taken over; empty if no mean is used.
    pub(super) reference: &'a [Vec<u32>],
}
