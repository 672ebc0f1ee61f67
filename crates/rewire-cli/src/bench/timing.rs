//! Times a work, alternating with the peer.

use std::time::Instant;

use burn::tensor::backend::AutodiffBackend;
use rewire_model::Transformer;
use rewire_tensor::is_synchronous;

use super::arguments::Arguments;
use super::peer::{Peer, Sharing};
use super::seconds::median;
use super::workloads::{Setting, Work};

/// How long a work took.
pub(super) struct Timed {
    /// Median seconds.
    pub(super) ours: f64,
    /// Seconds of a first time, on a GPU.
    pub(super) first: f64,
    /// The peer's times, or why it failed; none if it was not asked.
    pub(super) theirs: Option<anyhow::Result<TimedPeer>>,
}

/// How long the peer took for a work.
pub(super) struct TimedPeer {
    /// Median seconds.
    pub(super) seconds: f64,
    /// The largest difference of its results from ours.
    pub(super) difference: f32,
    /// It ran every stride-th patch.
    pub(super) stride: usize,
}

/// Times a work, alternating with the peer.
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
    /// Seconds of each time.
    seconds: Vec<f64>,
    difference: f32,
    failed: Option<anyhow::Error>,
}

impl<'p> PeerTimes<'p> {
    fn new(peer: &'p mut Peer, work: Work, nodes: usize, most_patches: usize, sharing: Sharing) -> Self {
        let stride = stride(nodes, most_patches);
        Self { peer, work, nodes, stride, sharing, seconds: Vec::new(), difference: 0.0, failed: None }
    }

    /// Runs the work once, without counting it.
    fn warm_up(&mut self) {
        // An error would come back when the work is timed, and is reported there.
        let _ = self.peer.run(self.work, self.stride);
    }

    /// Runs the work once and compares its results with `ours`; does nothing after a failure.
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

    /// Returns the median of the times, or the error that ended them.
    fn finish(self) -> anyhow::Result<TimedPeer> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(TimedPeer { seconds: median(self.seconds), difference: self.difference, stride: self.stride }),
        }
    }
}

/// The stride by which the peer runs at most `most` of `nodes` patches. It is no multiple of 2, 3
/// or 5, as numbers of positions, heads and layers are: the patches are not all at the same
/// position.
fn stride(nodes: usize, most: usize) -> usize {
    let shared = |stride: &usize| [2, 3, 5].iter().any(|factor| stride.is_multiple_of(*factor));
    match nodes.div_ceil(most.max(1)) {
        1 => 1,
        least => (least..).find(|stride| !shared(stride)).unwrap_or(least),
    }
}
