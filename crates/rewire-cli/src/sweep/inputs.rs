//! The inputs of a sweep.

use rewire_analysis::node::NodeKind;
use rewire_tasks::PromptPairs;

/// The inputs of a sweep: the same for every method.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// The prompt pairs.
    pub(super) pairs: &'a PromptPairs,
    /// The kinds of nodes that are patched.
    pub(super) nodes: &'a [NodeKind],
    /// The prompts that means are over; empty if no mean is wanted.
    pub(super) reference: &'a [Vec<u32>],
}
