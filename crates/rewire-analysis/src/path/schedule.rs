//! Divides paths into work chunks, and determines the entry of each receiver into the second run.

use std::collections::{BTreeMap, BTreeSet};

use rewire_hooks::Site;
use rewire_model::TransformerConfig;

use crate::node::kind::{Node, Positions};
use crate::patching::plan::Entry;
use crate::path::propagate::{CarriedRow, Stage, begins};
use crate::path::receiver::{Input, Receiver};
use crate::run::batch::PromptBatch;

/// One path, as indices of its set of senders and its set of receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathPair {
    pub(crate) senders: usize,
    pub(crate) receivers: usize,
    /// The attention head that alone reads the keys or values of a key/value head that receives;
    /// `None` for all heads that share them. A path through one head has one receiver.
    pub(crate) through: Option<usize>,
}

impl PathPair {
    /// Creates a path to the receivers as all heads read them.
    pub(super) fn new(senders: usize, receivers: usize) -> Self {
        Self { senders, receivers, through: None }
    }
}

/// The paths over one prompt batch: sets of senders, sets of receivers, and the pairs of sets.
pub(super) struct Job {
    pub(super) senders: Vec<Vec<Node>>,
    pub(super) receivers: Vec<Vec<Receiver>>,
    pub(super) paths: Vec<PathPair>,
}

/// Paths that are computed as one piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkChunk {
    /// Indices of the paths.
    pub(super) paths: Vec<usize>,
    /// Rows in the order in which they start.
    pub(super) rows: Vec<CarriedRow>,
}

/// Maximum number of receiver sets per set of senders in one work chunk.
const RECEIVERS: usize = 64;

impl Receiver {
    /// Returns the entry at which the received change joins the second run.
    pub(super) fn entry(&self, config: &TransformerConfig) -> Entry {
        match self.input {
            Input::ResidPre => Entry::Pre(self.layer),
            Input::ResidMid => Entry::Mid(self.layer),
            Input::Q | Input::K | Input::V if !config.parallel_block => Entry::Mid(self.layer),
            _ => Entry::Pre(self.layer + 1),
        }
    }

    /// Returns the stage of the residual stream that the receiver reads.
    pub(super) fn stage(&self, config: &TransformerConfig) -> Stage {
        match self.input.stream(config) {
            Site::ResidMid => Stage::mid(self.layer),
            Site::ResidPost => Stage::post(self.layer),
            _ => Stage::pre(self.layer),
        }
    }

    /// Returns whether `row` changes this receiver's input and can change the metric from there.
    pub(super) fn receives(&self, row: &CarriedRow, batch: &PromptBatch, config: &TransformerConfig) -> bool {
        let CarriedRow { begins, prompt, position, .. } = *row;
        self.is_at(prompt, position)
            && begins < self.reads(config)
            && batch.can_matter(prompt, self.input.component(), self.layer, config, &Positions::One(position))
    }
}

impl Job {
    /// Builds the job for one prompt batch.
    pub(super) fn of_batch(
        senders: &[Vec<Node>],
        receivers: &[Vec<Receiver>],
        paths: &[PathPair],
        batch: &PromptBatch,
    ) -> Self {
        let (from, len) = (batch.prompts[0], batch.prompts.len());
        let node = |node: &Node| Node { positions: node.positions.of_prompts(from, len), ..node.clone() };
        Self {
            senders: senders.iter().map(|set| set.iter().map(node).collect()).collect(),
            receivers: receivers.iter().map(|set| set.iter().map(|r| r.of_prompts(from, len)).collect()).collect(),
            paths: paths.to_vec(),
        }
    }

    /// Cuts the job into work chunks of about half `token_budget` rows, with few receivers per set
    /// of senders, to have work for every core.
    ///
    /// Paths that reach no receiver are in no chunk.
    pub(super) fn units(&self, batch: &PromptBatch, config: &TransformerConfig, token_budget: usize) -> Vec<WorkChunk> {
        let mut of_senders: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, path) in self.paths.iter().enumerate() {
            of_senders.entry(path.senders).or_default().push(number);
        }
        let unit = |senders: usize, paths: &[usize]| WorkChunk {
            rows: self.rows(senders, paths, batch, config),
            paths: paths.to_vec(),
        };
        let mut wholes: Vec<WorkChunk> = of_senders
            .into_iter()
            .flat_map(|(senders, paths)| paths.chunks(RECEIVERS).map(|paths| unit(senders, paths)).collect::<Vec<_>>())
            .filter(|unit| !unit.rows.is_empty())
            .collect();
        wholes.sort_by_key(|unit| unit.rows.iter().map(|row| row.begins).min());
        let rows: usize = wholes.iter().map(|unit| unit.rows.len()).sum();
        let n = (2 * rows).div_ceil(token_budget.max(1)).next_power_of_two().min(wholes.len().max(1));
        // Round-robin distribution gives every chunk senders of every depth, and about equal work.
        let mut units = vec![WorkChunk { paths: Vec::new(), rows: Vec::new() }; n];
        for (i, whole) in wholes.into_iter().enumerate() {
            units[i % n].paths.extend(whole.paths);
            units[i % n].rows.extend(whole.rows);
        }
        units.retain(|unit| !unit.paths.is_empty());
        for unit in &mut units {
            unit.rows.sort_unstable();
            unit.rows.dedup();
        }
        units
    }

    /// Returns the receivers that a row of the work chunk reaches: index of their set, and index
    /// within the set.
    pub(super) fn received(
        &self,
        unit: &WorkChunk,
        batch: &PromptBatch,
        config: &TransformerConfig,
    ) -> BTreeSet<(usize, usize)> {
        let mut rows: BTreeMap<usize, Vec<&CarriedRow>> = BTreeMap::new();
        for row in &unit.rows {
            rows.entry(row.senders).or_default().push(row);
        }
        let of_path = |&path: &usize| {
            let PathPair { senders, receivers, .. } = self.paths[path];
            let rows = rows.get(&senders).map(Vec::as_slice).unwrap_or_default();
            let received =
                move |(_, receiver): &(usize, &Receiver)| rows.iter().any(|row| receiver.receives(row, batch, config));
            let all = self.receivers[receivers].iter().enumerate().filter(received);
            all.map(|(number, _)| (receivers, number)).collect::<Vec<_>>()
        };
        unit.paths.iter().flat_map(of_path).collect()
    }

    /// Returns the rows at which a set of senders changes the input of one of its receivers.
    fn rows(
        &self,
        senders: usize,
        paths: &[usize],
        batch: &PromptBatch,
        config: &TransformerConfig,
    ) -> Vec<CarriedRow> {
        let receivers: Vec<&Receiver> =
            paths.iter().flat_map(|&path| &self.receivers[self.paths[path].receivers]).collect();
        let mut rows = Vec::new();
        for prompt in 0..batch.prompts.len() {
            for position in 0..=batch.last_read(prompt) {
                let begins = begins(&self.senders[senders], batch, config, prompt, position);
                let Some(begins) = begins else { continue };
                let row = CarriedRow { begins, senders, prompt, position };
                if receivers.iter().any(|receiver| receiver.receives(&row, batch, config)) {
                    rows.push(row);
                }
            }
        }
        rows
    }
}
