//! A checkpoint that stays in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rewire_analysis::run::{Checkpoint, PlannedWork, WorkId};

/// Keeps the results of passes in memory, and counts the passes that were run.
#[derive(Debug, Default)]
pub struct Memory {
    announced: Mutex<HashSet<WorkId>>,
    kept: Mutex<HashMap<WorkId, Vec<f32>>>,
    stored: AtomicUsize,
}

impl Memory {
    /// Returns the number of passes that were run since the last call.
    pub fn run(&self) -> usize {
        self.stored.swap(0, Ordering::Relaxed)
    }

    /// Returns the number of passes that analyses have announced.
    pub fn announced(&self) -> usize {
        self.announced.lock().expect("no panic while locked").len()
    }

    /// Returns the number of passes that are kept.
    pub fn kept(&self) -> usize {
        self.kept.lock().expect("no panic while locked").len()
    }

    /// Removes the first `n` passes in their order, or all if there are fewer; returns the number
    /// removed.
    pub fn lose(&self, n: usize) -> usize {
        let mut kept = self.kept.lock().expect("no panic while locked");
        let mut order: Vec<WorkId> = kept.keys().copied().collect();
        order.sort();
        order.truncate(n);
        order.iter().for_each(|pass| drop(kept.remove(pass)));
        order.len()
    }
}

impl Checkpoint for Memory {
    fn begin(&self, passes: &dyn Fn() -> Vec<PlannedWork>) {
        self.announced.lock().expect("no panic while locked").extend(passes().iter().map(|pass| pass.id));
    }

    fn load(&self, pass: WorkId) -> Option<Vec<f32>> {
        self.kept.lock().expect("no panic while locked").get(&pass).cloned()
    }

    fn store(&self, pass: WorkId, metrics: &[f32]) -> std::io::Result<()> {
        self.stored.fetch_add(1, Ordering::Relaxed);
        self.kept.lock().expect("no panic while locked").insert(pass, metrics.to_vec());
        Ok(())
    }
}
