//! Deals the passes of an analysis among processes that share no memory.

use std::collections::HashSet;

use crate::run::checkpoint::{PlannedWork, WorkId};

/// Operations per second and bytes per second of the nominal processor that costs are compared on.
/// Only their ratio matters.
const NOMINAL: [f64; 2] = [5e10, 5e9];

/// Halvings of the interval in which the smallest largest load is searched.
const HALVINGS: usize = 60;

/// Which process of several computes which pass. Each process makes the same deal from the same
/// announced passes, without a message to the others.
///
/// Passes are dealt in their order, a contiguous part for each process, because passes over one
/// batch of prompts share the unpatched runs of the batch. The parts are chosen so that the largest
/// predicted load of a process is as small as possible.
#[derive(Debug, Clone)]
pub struct Deal {
    /// Predicted nominal seconds of each process.
    loads: Vec<f64>,
    /// The passes of the process that this deal is for.
    own: HashSet<WorkId>,
    /// The index of that process.
    process: usize,
}

impl Deal {
    /// Returns the deal, without passes yet, for process `process` (counted from 0) of `of`.
    ///
    /// # Panics
    /// If there is no such process.
    #[must_use]
    pub fn new(process: usize, of: usize) -> Self {
        assert!(process < of, "process {process} of {of}");
        Self { loads: vec![0.0; of], own: HashSet::new(), process }
    }

    /// Deals further passes. Returns the index of the process that computes each pass.
    pub fn add(&mut self, passes: &[PlannedWork]) -> Vec<usize> {
        // Processes with the smallest loads come first, because later ones may get nothing.
        let mut order: Vec<usize> = (0..self.loads.len()).collect();
        order.sort_by(|a, b| self.loads[*a].total_cmp(&self.loads[*b]).then(a.cmp(b)));
        let most = self.smallest_largest_load(passes, &order);
        let (parts, loads) = self.cut(passes, &order, most);
        self.loads = loads;
        let mine = passes.iter().zip(&parts).filter(|(_, process)| **process == self.process);
        self.own.extend(mine.map(|(pass, _)| pass.id));
        parts
    }

    /// Returns whether the process of this deal computes a pass.
    #[must_use]
    pub fn takes(&self, pass: WorkId) -> bool {
        self.own.contains(&pass)
    }

    /// Returns the predicted load of each process, in seconds of a nominal processor.
    #[must_use]
    pub fn loads(&self) -> &[f64] {
        &self.loads
    }

    /// Returns the smallest load, up to rounding, that no process must exceed to compute all
    /// passes.
    fn smallest_largest_load(&self, passes: &[PlannedWork], order: &[usize]) -> f64 {
        let largest = self.loads.iter().copied().fold(0.0, f64::max);
        let all: f64 = passes.iter().map(|pass| seconds(pass, true)).sum();
        let [mut low, mut high] = [0.0, largest + all];
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            let last = order.last().copied().unwrap_or_default();
            // The last process takes what is left over.
            match self.cut(passes, order, middle).1[last] <= middle.max(self.loads[last]) {
                true => high = middle,
                false => low = middle,
            }
        }
        high
    }

    /// Cuts the passes into contiguous parts with loads of at most `most`. Returns the process of
    /// each pass and the loads; the last process takes all passes that are left over.
    fn cut(&self, passes: &[PlannedWork], order: &[usize], most: f64) -> (Vec<usize>, Vec<f64>) {
        let mut loads = self.loads.clone();
        let mut turn = 0;
        let mut batch = None;
        let parts = passes
            .iter()
            .map(|pass| {
                let mut more = seconds(pass, batch != Some(pass.id.batch));
                while turn + 1 < order.len() && loads[order[turn]] + more > most {
                    turn += 1;
                    more = seconds(pass, true);
                }
                batch = Some(pass.id.batch);
                loads[order[turn]] += more;
                order[turn]
            })
            .collect();
        (parts, loads)
    }
}

/// Returns the nominal seconds of a pass, with the runs that its batch needs if `with_setup`.
fn seconds(pass: &PlannedWork, with_setup: bool) -> f64 {
    let cost = if with_setup { pass.cost + pass.setup } else { pass.cost };
    let [operations, bytes] = NOMINAL;
    cost.operations / operations + cost.bytes / bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::cost::Cost;

    fn pass(batch: usize, number: usize, cost: f64, setup: f64) -> PlannedWork {
        let of = |seconds: f64| Cost { operations: seconds * NOMINAL[0], bytes: 0.0 };
        PlannedWork { id: WorkId::new(batch, number, "test"), cost: of(cost), setup: of(setup) }
    }

    /// Passes over `batches` batches of 32 prompts, with costs that fall from deep to shallow.
    fn passes(batches: usize, of_each: usize, setup: f64) -> Vec<PlannedWork> {
        let costs = (0..batches).flat_map(|batch| (0..of_each).map(move |number| (batch, number)));
        costs.map(|(batch, number)| pass(32 * batch, number, (of_each - number) as f64, setup)).collect()
    }

    /// Returns the largest load over the mean load.
    fn spread(loads: &[f64]) -> f64 {
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        loads.iter().copied().fold(0.0, f64::max) / mean
    }

    #[test]
    fn every_pass_has_one_process_and_all_processes_agree() {
        let passes = passes(7, 12, 3.0);
        let deals: Vec<(Deal, Vec<usize>)> = (0..5)
            .map(|process| {
                let mut deal = Deal::new(process, 5);
                let parts = deal.add(&passes);
                (deal, parts)
            })
            .collect();
        for (i, pass) in passes.iter().enumerate() {
            let takers: Vec<usize> = (0..5).filter(|&process| deals[process].0.takes(pass.id)).collect();
            assert_eq!(takers, [deals[0].1[i]]);
        }
    }

    #[test]
    fn loads_differ_by_less_than_a_tenth() {
        for (batches, of) in [(40, 16), (16, 16), (100, 7), (3, 2)] {
            let mut deal = Deal::new(0, of);
            deal.add(&passes(batches, 40, 20.0));
            assert!(spread(deal.loads()) < 1.1, "{batches} batches for {of}: {:?}", deal.loads());
        }
    }

    #[test]
    fn batches_stay_together_where_their_setup_is_dear() {
        let passes = passes(16, 12, 100.0);
        let mut deal = Deal::new(0, 16);
        let parts = deal.add(&passes);
        for (batch, of_batch) in parts.chunks(12).enumerate() {
            assert!(of_batch.iter().all(|process| *process == of_batch[0]), "batch {batch}: {of_batch:?}");
        }
    }

    #[test]
    fn later_passes_even_out_earlier_loads() {
        let mut deal = Deal::new(0, 4);
        // One long pass and nothing for the others.
        deal.add(&[pass(0, 0, 100.0, 0.0)]);
        let parts = deal.add(&(0..300).map(|number| pass(0, number, 1.0, 0.0)).collect::<Vec<_>>());
        assert!(parts.iter().all(|process| *process != 0), "the loaded process got more");
        assert!(spread(deal.loads()) < 1.02, "{:?}", deal.loads());
    }

    #[test]
    fn more_processes_than_passes_leave_some_idle() {
        let mut deal = Deal::new(7, 8);
        // Their costs are 3, 2 and 1: no deal has a smaller largest load than that of the first.
        deal.add(&passes(1, 3, 0.0));
        assert_eq!(deal.loads().iter().copied().fold(0.0, f64::max), 3.0);
        assert!(deal.loads().contains(&0.0));
        assert_eq!(Deal::new(0, 1).add(&passes(2, 3, 1.0)), [0; 6]);
        assert!(deal.add(&[]).is_empty());
    }
}
