//! Storage of the finished passes of a sweep, from which an interrupted sweep resumes.

use std::io;

/// Stores the finished passes of a sweep. Stored passes do not change the results: a resumed sweep
/// gives, byte for byte, the results of an uninterrupted one.
pub trait Checkpoint: Sync {
    /// Called before the passes of an analysis, or of a part of it. `passes` returns the ids of
    /// these passes, for a count of all passes and of the stored ones. Does nothing by default.
    fn begin(&self, _passes: &dyn Fn() -> Vec<WorkId>) {}

    /// Returns the stored numbers of a pass, or `None` if the pass was not stored. For an exact
    /// sweep, they are the metrics, one per patch and prompt. For attribution, they are the
    /// estimates for one batch of prompts.
    fn load(&self, pass: WorkId) -> Option<Vec<f32>>;

    /// Stores the numbers of a pass.
    ///
    /// # Errors
    /// Any error of the storage, such as a full disk.
    fn store(&self, pass: WorkId, numbers: &[f32]) -> io::Result<()>;
}

/// Identifies a pass of a sweep. Equal pairs, nodes and execution give equal passes on every
/// machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId {
    /// Index of the first prompt of the batch.
    pub batch: usize,
    /// Index of the pass among the passes over this batch.
    pub number: usize,
    /// A hash of the plan: the nodes of the pass, the place at which its run starts and the kind of
    /// intervention. A stored pass of another plan has another hash and is not reused. The hash
    /// does not cover the contents of prompts, weights and given activations, nor the number
    /// format: use one checkpoint per analysis.
    pub plan: u64,
}

impl WorkId {
    /// Returns the id of the pass that `plan` describes. The hash (FNV-1a) is the same on every
    /// machine.
    pub(crate) fn new(batch: usize, number: usize, plan: &str) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self { batch, number, plan: plan.bytes().fold(0xcbf2_9ce4_8422_2325, fold) }
    }
}

/// Stores nothing.
impl Checkpoint for () {
    fn load(&self, _: WorkId) -> Option<Vec<f32>> {
        None
    }

    fn store(&self, _: WorkId, _: &[f32]) -> io::Result<()> {
        Ok(())
    }
}
