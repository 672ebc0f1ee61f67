//! Storage of the finished passes of a sweep, from which an interrupted sweep resumes, and the
//! choice of the passes that one process computes.

use std::io;

use crate::run::cost::Cost;

/// Stores the finished passes of a sweep. Stored passes do not change the results: a resumed sweep
/// gives, byte for byte, the results of an uninterrupted one.
///
/// Several processes can share the passes of one sweep: [`takes`](Self::takes) says which passes
/// this process computes. An analysis skips all other passes that are not stored, and ends with
/// [`AnalysisError::PassesLeft`](crate::AnalysisError::PassesLeft). A process whose checkpoint has
/// the passes of all processes returns the results.
pub trait Checkpoint: Sync {
    /// Called before the passes of an analysis, or of a part of it. `passes` returns these passes,
    /// for a count of all passes and of the stored ones, and to deal them among processes. Does
    /// nothing by default.
    fn begin(&self, _passes: &dyn Fn() -> Vec<PlannedWork>) {}

    /// Returns whether this process computes a pass that is not stored. By default, it computes
    /// every pass.
    fn takes(&self, _pass: WorkId) -> bool {
        true
    }

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

/// A pass that an analysis announces, and its predicted cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedWork {
    /// The pass.
    pub id: WorkId,
    /// The cost of the pass itself.
    pub cost: Cost,
    /// The cost of the runs that all passes over the same batch share. Each process that computes a
    /// pass over the batch makes these runs once.
    pub setup: Cost,
}

/// The hash (FNV-1a) of no text. It is the same on every machine.
const NO_TEXT: u64 = 0xcbf2_9ce4_8422_2325;

/// Returns the hash of a text that follows the text with the hash `hash`.
fn hashed(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl WorkId {
    /// Returns the id of the pass that `plan` describes.
    pub(crate) fn new(batch: usize, number: usize, plan: &str) -> Self {
        Self { batch, number, plan: hashed(NO_TEXT, plan) }
    }
}

/// The checkpoint of one of several analyses that share a checkpoint. The ids of its passes include
/// the analysis's name, because equal passes of two analyses have equal ids.
pub struct NamedCheckpoint<'a> {
    shared: &'a dyn Checkpoint,
    analysis: &'a str,
}

impl<'a> NamedCheckpoint<'a> {
    /// Returns the checkpoint of the analysis with a name that no other analysis has.
    #[must_use]
    pub fn new(shared: &'a dyn Checkpoint, analysis: &'a str) -> Self {
        Self { shared, analysis }
    }

    fn named(&self, pass: WorkId) -> WorkId {
        WorkId { plan: hashed(pass.plan, self.analysis), ..pass }
    }
}

impl Checkpoint for NamedCheckpoint<'_> {
    fn begin(&self, passes: &dyn Fn() -> Vec<PlannedWork>) {
        let named = |pass: PlannedWork| PlannedWork { id: self.named(pass.id), ..pass };
        self.shared.begin(&|| passes().into_iter().map(named).collect());
    }

    fn takes(&self, pass: WorkId) -> bool {
        self.shared.takes(self.named(pass))
    }

    fn load(&self, pass: WorkId) -> Option<Vec<f32>> {
        self.shared.load(self.named(pass))
    }

    fn store(&self, pass: WorkId, numbers: &[f32]) -> io::Result<()> {
        self.shared.store(self.named(pass), numbers)
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
