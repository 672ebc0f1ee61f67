//! The ends of the paths that one analysis follows, and the changes that it finds.

use std::collections::BTreeSet;

use ndarray::Array2;

use crate::effects::Baselines;
use crate::node::kind::Node;
use crate::path::receiver::Receiver;
use crate::path::schedule::PathPair;

/// The changes of the metric along all paths.
pub(crate) struct Followed {
    pub(crate) baselines: Baselines,
    /// Factor that turns a change of the metric into an effect.
    pub(crate) factor: f64,
    /// Changes of the metric, `[prompt, path]`.
    pub(crate) changes: Array2<f32>,
    /// The receivers that a sender reaches: index of their set, and index within the set.
    pub(crate) received: BTreeSet<(usize, usize)>,
}

impl Followed {
    /// Returns the effects, `[prompt, path]`.
    pub(crate) fn effects(&self) -> Array2<f32> {
        self.changes.mapv(|change| (f64::from(change) * self.factor) as f32 + 0.0)
    }

    /// Returns the receivers of the first set that no sender reaches.
    pub(crate) fn unreached(&self, receivers: &[Receiver]) -> Vec<Receiver> {
        let is_missed = |(number, _): &(usize, &Receiver)| !self.received.contains(&(0, *number));
        receivers.iter().enumerate().filter(is_missed).map(|(_, receiver)| receiver.clone()).collect()
    }
}

/// Sets of senders, sets of receivers, and the pair of sets that each path connects.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a> {
    pub(crate) senders: &'a [Vec<Node>],
    pub(crate) receivers: &'a [Vec<Receiver>],
    pub(crate) paths: &'a [PathPair],
}
