//! A checkpoint in memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rewire_analysis::run::{Checkpoint, WorkId};

/// Keeps passes in memory, and counts those that had to be run.
#[derive(Debug, Default)]
pub struct Memory {
    kept: Mutex<HashMap<WorkId, Vec<f32>>>,
    stored: AtomicUsize,
}

impl Memory {
    /// How many passes were run since the last time this was asked.
    pub fn run(&self) -> usize {
        self.stored.swap(0, Ordering::Relaxed)
    }

    /// How many are kept.
    pub fn kept(&self) -> usize {
        self.kept.lock().expect("no panic while locked").len()
    }

    /// Loses the first `n`, in their order, or all if there are fewer; gives how many it lost.
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
    fn load(&self, pass: WorkId) -> Option<Vec<f32>> {
        self.kept.lock().expect("no panic while locked").get(&pass).cloned()
    }

    fn store(&self, pass: WorkId, metrics: &[f32]) -> std::io::Result<()> {
        self.stored.fetch_add(1, Ordering::Relaxed);
        self.kept.lock().expect("no panic while locked").insert(pass, metrics.to_vec());
        Ok(())
    }
}
