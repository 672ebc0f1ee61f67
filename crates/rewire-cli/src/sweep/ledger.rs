//! The record of an unfinished sweep, as the analyses keep their passes in it.

use std::io;

use rewire_analysis::run::{Ledger, Pass};
use rewire_store::{Key, Record};

/// A record in the sweep's output directory.
pub(crate) struct SweepLedger<'d>(pub(crate) Record<'d>);

impl SweepLedger<'_> {
    /// How many passes were finished by earlier runs of the same command.
    pub(crate) fn finished(&self) -> usize {
        self.0.finished()
    }
}

impl Ledger for SweepLedger<'_> {
    fn load(&self, pass: Pass) -> Option<Vec<f32>> {
        // A pass that cannot be read is computed again.
        self.0.load(key(pass)).ok().flatten()
    }

    fn store(&self, pass: Pass, numbers: &[f32]) -> io::Result<()> {
        self.0.store(key(pass), numbers).map_err(io::Error::other)
    }
}

fn key(pass: Pass) -> Key {
    Key { portion: pass.portion, number: pass.number, plan: pass.plan }
}
