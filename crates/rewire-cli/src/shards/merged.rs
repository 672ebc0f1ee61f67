//! Merges the shards of a command: the passes come from their files, and the results are those of
//! one process.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use rewire_analysis::run::{Checkpoint, PlannedWork, WorkId};
use rewire_store::Shards;

use super::{Basis, Counted, Divisible, hash, identity, is_expected};
use crate::interrupt::{Interrupts, Passes};
use crate::output::OutputArguments;
use crate::pass_key::key;
use crate::publish::{RESULTS, tell};

/// Merges the `shards` of a command in the directory `out`.
pub(crate) fn merge(
    mut work: impl Divisible,
    output: &OutputArguments,
    out: &Path,
    shards: Shards,
    interrupts: &Interrupts,
) -> anyhow::Result<()> {
    work.set_command(shards.header().command.clone());
    let Basis { session, source, run, .. } = work.basis();
    shards.check(&identity(run, source)?)?;
    let directory = output.take(out, &RESULTS, run, interrupts)?;
    work.announce(None)?;
    let checkpoint = MergeCheckpoint { shards, interrupts, state: Mutex::default() };
    let found = match work.compute(&checkpoint, Counted::Patches) {
        Err(error) if is_expected(&error) => bail!(checkpoint.mismatch()),
        found => found?,
    };
    let summary = work.write(found, &directory)?;
    checkpoint.shards.remove()?;
    tell(session, out, &summary)
}

/// A checkpoint that has the passes of all shards. It computes only passes that the shards could
/// not know, such as the patches of the nodes that an attribution ranked first (`--verify`).
struct MergeCheckpoint<'s> {
    shards: Shards,
    interrupts: &'s Interrupts,
    state: Mutex<State>,
}

/// The passes that the analyses announced.
#[derive(Default)]
struct State {
    /// The number of announced lists.
    lists: usize,
    /// The passes of the lists that the shards also planned.
    of_shards: HashSet<WorkId>,
    has_other_plan: bool,
}

impl MergeCheckpoint<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the reason why the shards lack a pass.
    fn mismatch(&self) -> &'static str {
        match self.state().has_other_plan {
            true => {
                "the shards planned other batches than this machine, whose device has other memory; merge on a machine \
                 like theirs, or compute the shards and merge with one --memory-budget"
            }
            false => "the shards lack passes; a shard was computed on a machine with other memory than the others",
        }
    }
}

impl Checkpoint for MergeCheckpoint<'_> {
    fn begin(&self, passes: &dyn Fn() -> Vec<PlannedWork>) {
        let passes = passes();
        let mut state = self.state();
        let plan = self.shards.plans().get(state.lists);
        state.lists += 1;
        match plan {
            Some(plan) => {
                state.has_other_plan |= *plan != hash(&passes);
                state.of_shards.extend(passes.iter().map(|pass| pass.id));
            }
            None => drop(self.interrupts.announce(Passes { done: 0, of: passes.len() })),
        }
    }

    fn takes(&self, pass: WorkId) -> bool {
        !self.state().of_shards.contains(&pass)
    }

    fn load(&self, pass: WorkId) -> Option<Vec<f32>> {
        self.shards.load(key(pass)).ok().flatten()
    }

    fn store(&self, _: WorkId, _: &[f32]) -> io::Result<()> {
        self.interrupts.finish_pass().map_err(io::Error::other)
    }
}
