//! Times a work on Rewire and on the peer, alternating.

use std::time::Instant;

use burn::tensor::backend::AutodiffBackend;
use rewire_model::Transformer;
use rewire_tensor::is_synchronous;

use super::arguments::Arguments;
use super::peer::{Peer, Sharing};
use super::seconds::median;
use super::workloads::{Setting, Work};

/// The times of a work.
pub(super) struct Timed {
    /// Median seconds.
    pub(super) ours: f64,
    /// Seconds of the first run on a GPU; 0 on the CPU.
    pub(super) first: f64,
    /// The peer's times or its error; `None` without a peer.
    pub(super) theirs: Option<anyhow::Result<TimedPeer>>,
}

/// The times of a work on the peer.
pub(super) struct TimedPeer {
    /// Median seconds.
    pub(super) seconds: f64,
    /// The largest absolute difference between its results and ours.
    pub(super) difference: f32,
    /// The peer ran every `stride`-th patch.
    pub(super) stride: usize,
}

/// Times a work on Rewire and on the peer, alternating.
///
/// # Errors
/// If Rewire fails. An error of the peer is in the result.
pub(super) fn timed<B: AutodiffBackend>(
    work: Work,
    model: &Transformer<B>,
    setting: &Setting,
    peer: Option<&mut Peer>,
    sharing: Sharing,
    arguments: &Arguments,
) -> anyhow::Result<Timed> {
    let once = || -> anyhow::Result<(f64, Vec<f32>)> {
        let started = Instant::now();
        let results = work.run(model, setting)?;
        Ok((started.elapsed().as_secs_f64(), results))
    };
    let nodes = work.n_nodes(model.config());
    let mut theirs = peer.map(|peer| PeerTimes::new(peer, work, nodes, arguments.peer_patches, sharing));
    let mut first = 0.0;
    if !is_synchronous::<B>(&model.device()) {
        (first, _) = once()?;
        if let Some(theirs) = &mut theirs {
            theirs.warm_up();
        }
    }
    let mut ours = Vec::new();
    for _ in 0..arguments.repeats.max(1) {
        let (seconds, results) = once()?;
        ours.push(seconds);
        if let Some(theirs) = &mut theirs {
            theirs.run(&results);
        }
    }
    Ok(Timed { ours: median(ours), first, theirs: theirs.map(PeerTimes::finish) })
}

/// The peer's times of one work, until it first fails.
struct PeerTimes<'p> {
    peer: &'p mut Peer,
    work: Work,
    nodes: usize,
    stride: usize,
    sharing: Sharing,
    /// Seconds of each run.
    seconds: Vec<f64>,
    difference: f32,
    failed: Option<anyhow::Error>,
}

impl<'p> PeerTimes<'p> {
    fn new(peer: &'p mut Peer, work: Work, nodes: usize, most_patches: usize, sharing: Sharing) -> Self {
        let stride = stride(nodes, most_patches);
        Self { peer, work, nodes, stride, sharing, seconds: Vec::new(), difference: 0.0, failed: None }
    }

    /// Runs the work once without timing it.
    fn warm_up(&mut self) {
        // The timed run would fail with the same error, and reports it.
        let _ = self.peer.run(self.work, self.stride);
    }

    /// Runs and times the work once, and compares its results with `ours`. Does nothing after a
    /// failure.
    fn run(&mut self, ours: &[f32]) {
        if self.failed.is_some() {
            return;
        }
        let answer = self.peer.run(self.work, self.stride).and_then(|answer| {
            Ok((answer.seconds_a_patch, answer.difference(ours, self.nodes, self.stride, self.sharing)?))
        });
        match answer {
            Ok((a_patch, difference)) => {
                self.seconds.push(a_patch * self.nodes as f64);
                self.difference = self.difference.max(difference);
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// Returns the median time, or the first error.
    fn finish(self) -> anyhow::Result<TimedPeer> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(TimedPeer { seconds: median(self.seconds), difference: self.difference, stride: self.stride }),
        }
    }
}

/// Returns the stride with which the peer runs at most `most` of `nodes` patches. It is no multiple
/// of 2, 3 or 5, unlike most numbers of positions, heads and layers. Otherwise all patches might be
/// at the same position.
fn stride(nodes: usize, most: usize) -> usize {
    let shared = |stride: &usize| [2, 3, 5].iter().any(|factor| stride.is_multiple_of(*factor));
    match nodes.div_ceil(most.max(1)) {
        1 => 1,
        least => (least..).find(|stride| !shared(stride)).unwrap_or(least),
    }
}
