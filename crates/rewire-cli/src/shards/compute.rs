//! One shard of a command: the passes that this process computes, without results.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rewire_analysis::run::{Checkpoint, Deal, PlannedWork, WorkId};
use rewire_store::{OpenedShard, SHARDS, Shard, ShardHeader, StoreError, Traces};
use rewire_studies::{Progress, Setup};

use super::choice::{Part, without_shard};
use super::{Basis, Counted, Divisible, hash, identity, is_expected};
use crate::interrupt::{Interrupts, Passes};
use crate::output::print;
use crate::pass_key::key;
use crate::publish::RESULTS;

/// Computes one shard of a command.
pub(crate) fn run(work: &impl Divisible, part: Part, interrupts: &Interrupts) -> anyhow::Result<()> {
    let Basis { session, source, run, out, output } = work.basis();
    let memory = work.memory()?;
    output.check(out, &RESULTS, run)?;
    let header = ShardHeader {
        number: part.number,
        of: part.of,
        identity: identity(run, source)?,
        command: without_shard(session.command()),
        directory: std::env::current_dir().map_or_else(|_| ".".to_owned(), |path| path.display().to_string()),
    };
    let shard = match Shard::open(out, &header, output.other_shards())? {
        OpenedShard::Unfinished(shard) => shard,
        OpenedShard::Finished => return print(&format!("shard {part} was finished before\n{}", next(out, part))),
    };
    interrupts.begin_computing(Traces::default());
    work.announce(memory)?;
    let checkpoint = ShardCheckpoint::new(shard, part, interrupts, session.setup());
    match work.compute(&checkpoint, Counted::Passes) {
        Err(error) if !is_expected(&error) => return Err(error),
        _ => {}
    }
    let passes = checkpoint.finish()?;
    print(&format!(
        "shard {part} is finished: {} of {} passes, {:.1} s\n{}",
        passes.of,
        passes.all,
        session.seconds(),
        next(out, part)
    ))
}

/// Returns what remains to be done.
fn next(out: &Path, part: Part) -> String {
    let entries = std::fs::read_dir(out.join(SHARDS)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let finished = names.filter(|name| name.ends_with(".jsonl") && !name.starts_with('.')).count();
    match finished >= part.of {
        true => format!("all {} shards are finished; `rewire merge {}` makes the results\n", part.of, out.display()),
        false => format!("{finished} of {} shards are finished in {}\n", part.of, out.display()),
    }
}

/// The checkpoint of a shard. It takes the passes that are dealt to the shard, and stops it after
/// Ctrl-C.
struct ShardCheckpoint<'s> {
    shard: Shard,
    interrupts: &'s Interrupts,
    setup: Setup<'s>,
    state: Mutex<State>,
    /// The number of passes of this shard, and of the finished ones among them.
    own: AtomicUsize,
    done: AtomicUsize,
}

/// The passes that the analyses announced.
struct State {
    deal: Deal,
    plans: Vec<String>,
    passes: usize,
}

/// The number of passes of a shard, and of all shards.
struct Counts {
    of: usize,
    all: usize,
}

impl<'s> ShardCheckpoint<'s> {
    fn new(shard: Shard, part: Part, interrupts: &'s Interrupts, setup: Setup<'s>) -> Self {
        let deal = Deal::new(part.number - 1, part.of);
        let state = Mutex::new(State { deal, plans: Vec::new(), passes: 0 });
        Self { shard, interrupts, setup, state, own: AtomicUsize::new(0), done: AtomicUsize::new(0) }
    }

    /// Finishes the file of the shard.
    fn finish(self) -> Result<Counts, StoreError> {
        let State { plans, passes, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.shard.finish(&plans)?;
        Ok(Counts { of: self.own.into_inner(), all: passes })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        let [done, of] = [&self.done, &self.own].map(|count| count.load(Ordering::Relaxed));
        (self.setup.on_progress)(Progress::Done { done, of });
    }
}

impl Checkpoint for ShardCheckpoint<'_> {
    fn begin(&self, passes: &dyn Fn() -> Vec<PlannedWork>) {
        let passes = passes();
        let mut state = self.state();
        state.deal.add(&passes);
        state.plans.push(hash(&passes));
        state.passes += passes.len();
        let own: Vec<WorkId> = passes.iter().map(|pass| pass.id).filter(|pass| state.deal.takes(*pass)).collect();
        drop(state);
        let done = own.iter().filter(|pass| self.shard.has(key(**pass))).count();
        self.interrupts.announce(Passes { done, of: own.len() });
        self.own.fetch_add(own.len(), Ordering::Relaxed);
        self.done.fetch_add(done, Ordering::Relaxed);
        self.show();
    }

    fn takes(&self, pass: WorkId) -> bool {
        self.state().deal.takes(pass)
    }

    fn load(&self, pass: WorkId) -> Option<Vec<f32>> {
        // A pass that cannot be read is computed again.
        self.shard.load(key(pass)).ok().flatten()
    }

    fn store(&self, pass: WorkId, numbers: &[f32]) -> io::Result<()> {
        self.shard.store(key(pass), numbers).map_err(io::Error::other)?;
        self.done.fetch_add(1, Ordering::Relaxed);
        self.show();
        self.interrupts.finish_pass().map_err(io::Error::other)
    }
}
