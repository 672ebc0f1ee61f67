//! Keeping what a sweep has finished, so that an interrupted one goes on where it ended.

use std::io;

/// Keeps the passes of a sweep. What is computed does not depend on what was kept: a sweep that goes on gives, byte for byte,
/// what an uninterrupted one gives.
pub trait Ledger: Sync {
    /// What was kept of a pass, if it was: its metrics, one a patch and prompt.
    fn load(&self, pass: Pass) -> Option<Vec<f32>>;

    /// Keeps a pass.
    ///
    /// # Errors
    /// What the medium says.
    fn store(&self, pass: Pass, metrics: &[f32]) -> io::Result<()>;
}

/// Which pass of a sweep: the same pairs, nodes and options always give the same passes, on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pass {
    /// Number of the portion of prompts.
    pub portion: usize,
    /// Number of the pass over them.
    pub number: usize,
    /// A hash of what it patches and where it starts: what was kept of another plan is not taken for this one's.
    pub patches: u64,
}

/// Keeps nothing.
impl Ledger for () {
    fn load(&self, _: Pass) -> Option<Vec<f32>> {
        None
    }

    fn store(&self, _: Pass, _: &[f32]) -> io::Result<()> {
        Ok(())
    }
}
