//! The checkpoint of an unfinished sweep: a record that keeps the finished passes of the analyses.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use rewire_analysis::run::{Checkpoint, PlannedWork, WorkId};
use rewire_store::{Record, StoreError};

use crate::interrupt::{Interrupts, Passes};
use crate::output::print;
use crate::pass_key::key;

/// A checkpoint in a record of the sweep's output directory. It stops the sweep after Ctrl-C.
pub(crate) struct SweepCheckpoint<'d> {
    record: Record<'d>,
    interrupts: &'d Interrupts,
    /// Number of passes that earlier runs finished, among the announced passes.
    found: AtomicUsize,
}

impl<'d> SweepCheckpoint<'d> {
    /// Returns the checkpoint in a record.
    pub(crate) fn new(record: Record<'d>, interrupts: &'d Interrupts) -> Self {
        Self { record, interrupts, found: AtomicUsize::new(0) }
    }

    /// Removes the record, if it exists.
    pub(crate) fn remove(self) -> Result<(), StoreError> {
        self.record.remove()
    }
}

impl Checkpoint for SweepCheckpoint<'_> {
    /// Announces the passes. Prints how many of all passes earlier runs finished, once their last
    /// one is among the announced passes.
    fn begin(&self, passes: &dyn Fn() -> Vec<PlannedWork>) {
        let passes = passes();
        let done = passes.iter().filter(|pass| self.record.has(key(pass.id))).count();
        let Passes { of, .. } = self.interrupts.announce(Passes { done, of: passes.len() });
        let found = self.found.fetch_add(done, Ordering::Relaxed) + done;
        if done > 0 && found == self.record.finished() {
            // A failure to print shows again when the results are printed.
            let _ = print(&format!("resuming an unfinished sweep: {found} of {of} passes were done before\n"));
        }
    }

    fn load(&self, pass: WorkId) -> Option<Vec<f32>> {
        // A pass that cannot be read is computed again.
        self.record.load(key(pass)).ok().flatten()
    }

    fn store(&self, pass: WorkId, numbers: &[f32]) -> io::Result<()> {
        self.record.store(key(pass), numbers).map_err(io::Error::other)?;
        self.interrupts.finish_pass().map_err(io::Error::other)
    }
}
