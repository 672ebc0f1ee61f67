//! Random sets of heads, to compare a circuit with.

use std::collections::BTreeSet;

use burn::tensor::backend::Backend;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_analysis::run::Execution;
use rewire_hooks::Head;

use crate::error::CircuitError;
use crate::faithfulness::{Ablations, Carried};

/// Number of random sets that a circuit is compared with.
const RANDOM: usize = 20;

/// Random sets with as many heads as the circuit.
#[derive(Debug, Clone)]
pub struct Random {
    /// The pool that the heads are drawn from.
    pub from: &'static str,
    /// The shares of each set.
    pub sets: Vec<Carried>,
}

impl Random {
    /// Returns the circuit's two ranks among the sets, 1 for the best: by the distance of its kept
    /// share from 1, and by the distance of its left share from 0.
    #[must_use]
    pub fn ranks(&self, circuit: &Carried) -> [usize; 2] {
        let rank = |distance: fn(&Carried) -> f64| {
            1 + self.sets.iter().filter(|set| distance(set) <= distance(circuit)).count()
        };
        [rank(|c| (c.shares.kept - 1.0).abs()), rank(|c| c.shares.left.abs())]
    }
}

/// Measures sets of random heads. They are drawn from the heads outside the circuit, or from all
/// heads if the circuit has at least as many heads as are outside it.
///
/// # Errors
/// [`CircuitError`], for example if `all` has fewer heads than the circuit.
pub fn compare_with_random<B: Backend>(
    judging: &Ablations<B>,
    all: &[Head],
    circuit: &BTreeSet<Head>,
    seed: u64,
    execution: &Execution,
) -> Result<Random, CircuitError> {
    if all.len() < circuit.len() {
        return Err(CircuitError::TooFewToDraw { wanted: circuit.len(), there: all.len() });
    }
    let outside: Vec<Head> = all.iter().filter(|head| !circuit.contains(head)).copied().collect();
    let (from, pool) = match outside.len() > circuit.len() {
        true => ("heads outside the circuit", outside.as_slice()),
        false => ("all heads, the circuit's among them", all),
    };
    let sets = random_sets(pool, circuit.len(), RANDOM, seed);
    Ok(Random { from, sets: judging.carried(&sets, execution)? })
}

/// Draws `sets` sets of `n` different heads each. The same seed gives the same sets.
///
/// # Panics
/// If the pool has fewer than `n` heads.
#[must_use]
pub fn random_sets(pool: &[Head], n: usize, sets: usize, seed: u64) -> Vec<BTreeSet<Head>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |_| {
        let mut pool = pool.to_vec();
        let mut set = BTreeSet::new();
        while set.len() < n {
            assert!(!pool.is_empty(), "cannot draw {n} heads: the pool has fewer");
            let i = ((u64::from(rng.next_u32()) * pool.len() as u64) >> 32) as usize;
            set.insert(pool.swap_remove(i));
        }
        set
    };
    (0..sets).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faithfulness::Shares;

    #[test]
    fn random_head_sets_have_the_requested_size_and_differ() {
        let all: Vec<Head> = (0..32).map(|i| Head::new(i / 8, i % 8)).collect();
        let sets = random_sets(&all, 10, 20, 3);
        assert!(sets.iter().all(|set| set.len() == 10));
        assert_ne!(sets[0], sets[1]);
        assert_eq!(sets, random_sets(&all, 10, 20, 3));
    }

    #[test]
    fn a_circuit_that_keeps_too_much_ranks_after_random_heads_that_keep_all() {
        let carried = |kept, left| Carried {
            heads: BTreeSet::new(),
            shares: Shares { kept, left },
            intervals: [[0.0; 2]; 2],
            stability: 0.0,
        };
        let random = Random { from: "", sets: vec![carried(1.0, 0.9), carried(0.1, -0.3)] };
        assert_eq!(random.ranks(&carried(1.27, -0.12)), [2, 1]);
        assert_eq!(random.ranks(&carried(0.95, 0.5)), [2, 2]);
        assert_eq!(random.ranks(&carried(1.0, 0.0)), [2, 1], "a tie counts against the circuit");
    }
}
