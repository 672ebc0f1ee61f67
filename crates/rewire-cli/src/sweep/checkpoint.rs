//! The checkpoint of an unfinished sweep: a record that keeps the finished passes of the analyses.

use std::io;

use rewire_analysis::run::{Checkpoint, WorkId};
use rewire_store::{Key, Record};

/// A checkpoint in a record of the sweep's output directory.
pub(crate) struct SweepCheckpoint<'d>(pub(crate) Record<'d>);

impl SweepCheckpoint<'_> {
    /// Returns how many passes earlier runs of the same command finished.
    pub(crate) fn finished(&self) -> usize {
        self.0.finished()
    }
}

impl Checkpoint for SweepCheckpoint<'_> {
    fn load(&self, pass: WorkId) -> Option<Vec<f32>> {
        // A pass that cannot be read is computed again.
        self.0.load(key(pass)).ok().flatten()
    }

    fn store(&self, pass: WorkId, numbers: &[f32]) -> io::Result<()> {
        self.0.store(key(pass), numbers).map_err(io::Error::other)
    }
}

fn key(pass: WorkId) -> Key {
    Key { portion: pass.batch, number: pass.number, plan: pass.plan }
}
