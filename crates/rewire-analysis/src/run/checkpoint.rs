//! Keeping what a sweep has finished, so that an interrupted one goes on where it ended.

use std::io;

/// Keeps the passes of a sweep. What is computed does not depend on what was kept: a sweep that goes on gives, byte for byte,
/// what an uninterrupted one gives.
pub trait Checkpoint: Sync {
    /// What was kept of a pass, if it was: of an exact sweep its metrics, one a patch and prompt; of an attribution the estimates
    /// of its portion of prompts.
    fn load(&self, pass: WorkId) -> Option<Vec<f32>>;

    /// Keeps a pass.
    ///
    /// # Errors
    /// What the medium says.
    fn store(&self, pass: WorkId, numbers: &[f32]) -> io::Result<()>;
}

/// Which pass of a sweep: the same pairs, nodes and execution always give the same passes, on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId {
    /// Number of the first prompt of its portion.
    pub batch: usize,
    /// Number of the pass over them.
    pub number: usize,
    /// A hash of what it is of, where it starts and by what kind of intervention: what was kept of another plan is not taken for this
    /// one's. It does not know the numbers of prompts, weights or given activations, nor what kind of
    /// numbers was computed with: keep those of one analysis in one checkpoint.
    pub plan: u64,
}

impl WorkId {
    /// The pass that `plan` describes; its hash is the same on every machine (FNV-1a).
    pub(crate) fn new(batch: usize, number: usize, plan: &str) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self { batch, number, plan: plan.bytes().fold(0xcbf2_9ce4_8422_2325, fold) }
    }
}

/// Keeps nothing.
impl Checkpoint for () {
    fn load(&self, _: WorkId) -> Option<Vec<f32>> {
        None
    }

    fn store(&self, _: WorkId, _: &[f32]) -> io::Result<()> {
        Ok(())
    }
}
