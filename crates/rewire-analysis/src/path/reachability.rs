//! Determines which receivers a work chunk's senders reach, and plans the second runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rewire_model::TransformerConfig;

use crate::patching::pass_cost::{Costs, mlp_maps};
use crate::patching::plan::{Entry, PlannedPass, at_once};
use crate::path::policy::Recompute;
use crate::path::propagate::CarriedRow;
use crate::path::receiver::{Receiver, mlp_reads, mlp_writes};
use crate::path::schedule::{Job, WorkChunk};
use crate::run::batch::PromptBatch;
use crate::run::cost::Cost;

/// Which rows reach which receivers within one work chunk.
pub(super) struct Reach<'a> {
    job: &'a Job,
    unit: &'a WorkChunk,
    batch: &'a PromptBatch,
    config: &'a TransformerConfig,
    /// Index of each row, by senders, prompt and position.
    number: HashMap<(usize, usize, usize), usize>,
}

/// The heads through which a path enters, and the path.
type HeadsOfPath = (Vec<usize>, usize);

/// Paths that run in one batch, because they enter the second run at one place.
pub(super) struct SecondRun {
    pub(super) entry: Entry,
    /// The first computed position.
    pub(super) first: usize,
    pub(super) paths: Vec<usize>,
    /// The heads of the entry's layer through which each path enters; none if it does not enter
    /// through attention. Paths with the same heads follow each other.
    pub(super) heads: Vec<Vec<usize>>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(
        job: &'a Job,
        unit: &'a WorkChunk,
        batch: &'a PromptBatch,
        config: &'a TransformerConfig,
    ) -> Self {
        let number = unit.rows.iter().enumerate().map(|(i, r)| ((r.senders, r.prompt, r.position), i)).collect();
        Self { job, unit, batch, config, number }
    }

    pub(super) fn rows(&self) -> &[CarriedRow] {
        &self.unit.rows
    }

    pub(super) fn receivers(&self, path: usize) -> &'a [Receiver] {
        &self.job.receivers[self.job.paths[path].receivers]
    }

    /// Returns the row that changes the input of `receiver` in `path` at a prompt and position, if
    /// any.
    pub(super) fn row(&self, path: usize, receiver: &Receiver, prompt: usize, position: usize) -> Option<usize> {
        let number = *self.number.get(&(self.job.paths[path].senders, prompt, position))?;
        receiver.receives(&self.unit.rows[number], self.batch, self.config).then_some(number)
    }

    /// Returns whether a sender of `path` reaches a receiver in a prompt.
    pub(super) fn reaches(&self, path: usize, prompt: usize) -> bool {
        let mut positions = 0..self.batch.pairs.width();
        positions.any(|at| self.receivers(path).iter().any(|r| self.row(path, r, prompt, at).is_some()))
    }

    /// Returns a path's entry into the second run, its first position, and the heads that it enters
    /// through; `None` if no sender reaches the path's receivers.
    fn entry(&self, path: usize) -> Option<(Entry, usize, Vec<usize>)> {
        let (prompts, width) = (self.batch.prompts.len(), self.batch.pairs.width());
        let mut reached = Vec::new();
        for receiver in self.receivers(path) {
            let mut positions =
                (0..width).filter(|&at| (0..prompts).any(|p| self.row(path, receiver, p, at).is_some()));
            reached.extend(positions.next().map(|first| (receiver, first)));
        }
        let entry = reached.iter().map(|(r, _)| r.entry(self.config)).min_by_key(|entry| entry.depth())?;
        let read = self.batch.all_reads().iter().copied();
        let first = reached.iter().map(|(_, first)| *first).chain(read).min()?;
        let at_entry = reached.iter().filter(|(r, _)| r.entry(self.config) == entry);
        let heads: BTreeSet<usize> = at_entry.flat_map(|(r, _)| r.query_heads(self.config)).collect();
        let through = self.job.paths[path].through;
        Some((entry, first, heads.into_iter().filter(|head| through.is_none_or(|one| one == *head)).collect()))
    }

    /// Plans the second runs of these paths. Paths that reach no receiver are in no run.
    pub(super) fn second_runs(&self, paths: &[usize], token_budget: usize) -> Vec<SecondRun> {
        let mut together: BTreeMap<(usize, usize), (Entry, Vec<HeadsOfPath>)> = BTreeMap::new();
        for &path in paths {
            if let Some((entry, first, heads)) = self.entry(path) {
                together.entry((entry.depth(), first)).or_insert((entry, Vec::new())).1.push((heads, path));
            }
        }
        let mut runs = Vec::new();
        for ((_, first), (entry, mut of_paths)) in together {
            of_paths.sort();
            let at_once = at_once(self.config, self.batch, first, token_budget);
            runs.extend(of_paths.chunks(at_once).map(|part| {
                let (heads, paths) = part.iter().cloned().unzip();
                SecondRun { entry, first, paths, heads }
            }));
        }
        runs
    }

    /// Returns the least cost of a work chunk: the MLPs up to the last receiver, and the second
    /// runs.
    pub(super) fn cost(&self, costs: Costs, mlps: Recompute, token_budget: usize) -> Cost {
        let mlp = 2.0 * mlp_maps(self.config) * (self.config.d_model * self.config.d_mlp) as f64;
        let receivers = self.unit.paths.iter().flat_map(|&path| self.receivers(path));
        let deepest = receivers.map(|r| r.reads(self.config)).max().unwrap_or(0);
        let carried = |row: &CarriedRow| match mlps {
            Recompute::Yes => {
                let on_the_way =
                    |&layer: &usize| row.begins < mlp_reads(layer, self.config) && mlp_writes(layer) < deepest;
                (0..self.config.n_layers).filter(on_the_way).count() as f64 * mlp
            }
            Recompute::Frozen => 0.0,
        };
        let second =
            |run: SecondRun| costs.pass(&PlannedPass::of_one_entry(run.entry, run.first, run.paths.len()), self.batch);
        let seconds = self.second_runs(&self.unit.paths, token_budget).into_iter().map(second);
        Cost { operations: self.unit.rows.iter().map(carried).sum(), bytes: 0.0 } + seconds.sum()
    }
}
