//! The record of an unfinished sweep, as the analyzes keep their passes in it.

use std::io;

use rewire_analysis::run::{Checkpoint, WorkId};
use rewire_store::{Key, Record};

/// A record in the sweep's output directory.
pub(crate) struct SweepCheckpoint<'d>(pub(crate) Record<'d>);

impl SweepCheckpoint<'_> {
    /// How many passes were finished by earlier runs of the same command.
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
