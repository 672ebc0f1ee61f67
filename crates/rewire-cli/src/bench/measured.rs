//! The figures of one work, for the table and for `--json`.

use rewire_analysis::patching::Cost;
use serde::Serialize;

use super::peer::Sharing;
use super::rates::Rates;
use super::timing::{Timed, TimedPeer};
use super::workloads::Work;

/// The figures of one work on one model.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) work: String,
    pub(super) nodes: usize,
    /// Median seconds divided by the floor.
    pub(super) time_over_floor: f64,
    /// Median seconds.
    pub(super) seconds: f64,
    /// The longer of the times for operations and for bytes.
    pub(super) floor_seconds: f64,
    /// Lower bound on the floating-point operations of matmuls.
    pub(super) operations: f64,
    /// Lower bound on the bytes moved.
    pub(super) bytes: f64,
    /// Operations per second, as a share of the matmul rate.
    pub(super) share_of_matmul_rate: f64,
    /// Seconds of the first run, only on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transformer_lens: Option<AgainstPeer>,
}

/// The figures of TransformerLens on the same work.
#[derive(Debug, Serialize)]
pub(super) struct AgainstPeer {
    pub(super) times_faster: f64,
    /// Median seconds.
    pub(super) seconds: f64,
    /// Whether it ran only some of the patches.
    pub(super) is_extrapolated: bool,
    /// The largest absolute difference between the results, if both have the same weights.
    pub(super) largest_difference: Option<f32>,
}

impl Measured {
    /// Returns the figures of a timed work.
    pub(super) fn new(work: Work, nodes: usize, timed: &Timed, cost: Cost, rates: &Rates, sharing: Sharing) -> Self {
        let floor = cost.seconds(rates.products, rates.bandwidth);
        let peer = timed.theirs.as_ref().and_then(|theirs| theirs.as_ref().ok());
        Self {
            work: work.name(),
            nodes,
            time_over_floor: timed.ours / floor,
            seconds: timed.ours,
            floor_seconds: floor,
            operations: cost.operations,
            bytes: cost.bytes,
            share_of_matmul_rate: cost.operations / rates.products / timed.ours,
            first_seconds: (timed.first > 0.0).then_some(timed.first),
            transformer_lens: peer.map(|theirs| AgainstPeer::new(timed.ours, theirs, sharing)),
        }
    }
}

impl AgainstPeer {
    fn new(ours: f64, theirs: &TimedPeer, sharing: Sharing) -> Self {
        Self {
            times_faster: theirs.seconds / ours,
            seconds: theirs.seconds,
            is_extrapolated: theirs.stride > 1,
            largest_difference: (sharing == Sharing::Weights).then_some(theirs.difference),
        }
    }
}
