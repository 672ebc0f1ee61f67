//! The kinds of trials, their order, and the number of each that passed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tempfile::TempDir;

use crate::commands::{Line, write_pairs};
use crate::program::Program;
use crate::results::{Files, read};
use crate::{cluster, damage, disks, faults, kills, races, servers};

/// A kind of trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL at a random moment.
    Kill,
    /// Two runs in one output directory.
    Race,
    /// A second run that waits for the first.
    Wait,
    /// A damaged record.
    Damage,
    /// A full disk.
    Full,
    /// Standard output or error on a full device.
    FullTerminal,
    /// An output directory with an odd name.
    OddName,
    /// The user's files with our names.
    UsersFiles,
    /// Files removed during a command.
    Removal,
    /// A hostile server in place of the hub.
    Server,
    /// Shards that are killed or ended at random moments.
    LostShards,
    /// Two submissions of shards in one directory.
    TwoSubmissions,
    /// Shards in a directory that is full.
    FullShards,
    /// Shards in a slow directory, with clocks that differ and run backwards.
    SlowShards,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 14] = [
        Kind::Kill,
        Kind::Race,
        Kind::Wait,
        Kind::Damage,
        Kind::Full,
        Kind::FullTerminal,
        Kind::OddName,
        Kind::UsersFiles,
        Kind::Removal,
        Kind::Server,
        Kind::LostShards,
        Kind::TwoSubmissions,
        Kind::FullShards,
        Kind::SlowShards,
    ];

    /// Returns its name in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill at a random moment",
            Kind::Race => "two runs in one directory",
            Kind::Wait => "second run with --wait",
            Kind::Damage => "damaged record",
            Kind::Full => "full disk",
            Kind::FullTerminal => "full standard output or error",
            Kind::OddName => "output directory that is not UTF-8",
            Kind::UsersFiles => "the user's files and symlinks",
            Kind::Removal => "files removed under a run",
            Kind::Server => "hostile server",
            Kind::LostShards => "shards killed or ended",
            Kind::TwoSubmissions => "two submissions in one directory",
            Kind::FullShards => "shards in a full directory",
            Kind::SlowShards => "slow directory, clocks backwards",
        }
    }

    /// Returns the number of trials of this kind in one round. Kinds with random choices get the
    /// most.
    fn weight(self) -> usize {
        match self {
            Kind::Kill => 11,
            Kind::Server => 20,
            Kind::Damage => 9,
            Kind::LostShards => 6,
            Kind::Race => 4,
            Kind::TwoSubmissions | Kind::SlowShards => 2,
            Kind::Full | Kind::FullShards | Kind::Removal => 3,
            _ => 1,
        }
    }
}

/// An undisturbed run.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) files: Files,
    pub(crate) seconds: f64,
}

/// The trials of one session.
#[derive(Debug)]
pub struct Trials {
    pub(crate) program: Program,
    pub(crate) random: ChaCha8Rng,
    /// Number of the trial among those of its kind.
    pub(crate) count: usize,
    references: BTreeMap<Line, Reference>,
}

/// The number of trials of each kind that passed, and the failures.
#[derive(Debug, Default)]
pub struct Counts {
    tried: BTreeMap<Kind, usize>,
    passed: BTreeMap<Kind, usize>,
    /// Failures, one line each, with the seed and the number that repeat the trial.
    pub failures: Vec<String>,
}

impl Trials {
    /// Returns trials of `program`. `seed` determines every random choice except the scheduler's.
    #[must_use]
    pub fn new(program: Program, seed: u64) -> Self {
        Self { program, random: ChaCha8Rng::seed_from_u64(seed), count: 0, references: BTreeMap::new() }
    }

    /// Runs whole rounds of all kinds until `time` has passed. `tell` receives the counts and the
    /// failures after each round.
    pub fn run_for(&mut self, time: Duration, mut tell: impl FnMut(&Counts)) -> Counts {
        let start = Instant::now();
        let mut counts = Counts::default();
        while start.elapsed() < time {
            for kind in Kind::ALL {
                for _ in 0..kind.weight() {
                    if start.elapsed() < time {
                        self.run(kind, &mut counts);
                    }
                }
            }
            tell(&counts);
        }
        counts
    }

    /// Runs one trial.
    pub fn run(&mut self, kind: Kind, counts: &mut Counts) {
        let tried = counts.tried.entry(kind).or_default();
        self.count = *tried;
        *tried += 1;
        let result = match kind {
            Kind::Kill => kills::kill(self),
            Kind::Race => races::race(self),
            Kind::Wait => races::wait(self),
            Kind::Damage => damage::damage(self),
            Kind::Full => disks::full(self),
            Kind::FullTerminal => disks::full_terminal(self),
            Kind::OddName => faults::odd_names(self),
            Kind::UsersFiles => faults::files_of_the_users(self),
            Kind::Removal => faults::removals(self),
            Kind::Server => servers::fetch(self),
            Kind::LostShards => cluster::lost(self),
            Kind::TwoSubmissions => cluster::two_submissions(self),
            Kind::FullShards => cluster::full(self),
            Kind::SlowShards => cluster::slow(self),
        };
        match result {
            Ok(()) => *counts.passed.entry(kind).or_default() += 1,
            Err(error) => counts.failures.push(format!("{}, trial {}: {error:#}", kind.name(), self.count)),
        }
    }

    /// Number of the trial among those of its kind.
    pub(crate) fn number(&self) -> usize {
        self.count
    }

    /// Creates a directory with `pairs.jsonl`.
    pub(crate) fn fresh(&self) -> anyhow::Result<TempDir> {
        let directory = tempfile::tempdir().context("no place for a trial")?;
        write_pairs(directory.path())?;
        Ok(directory)
    }

    /// Returns the results and the duration of an undisturbed command.
    pub(crate) fn reference(&mut self, line: Line) -> anyhow::Result<Reference> {
        if let Some(reference) = self.references.get(&line) {
            return Ok(reference.clone());
        }
        let directory = self.fresh()?;
        let start = Instant::now();
        self.program.succeed(directory.path(), &line.arguments_to("o"))?;
        let seconds = start.elapsed().as_secs_f64();
        let files = read(&line.files(&directory.path().join("o")))?;
        let reference = Reference { files, seconds };
        self.references.insert(line, reference.clone());
        Ok(reference)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, tried) in &self.tried {
            let passed = self.passed.get(kind).copied().unwrap_or_default();
            writeln!(f, "  {:<36} {passed:>5} of {tried}", kind.name())?;
        }
        for failure in &self.failures {
            writeln!(f, "  FAILED {failure}")?;
        }
        Ok(())
    }
}
