//! The choice of the heads that make up the circuit.

use std::collections::BTreeSet;

use burn::tensor::backend::Backend;
use rewire_analysis::run::Execution;
use rewire_hooks::Head;

use crate::error::CircuitError;
use crate::faithfulness::{Ablations, Carried};

/// Share of the resamples of the choosing prompts in which a circuit must be within both bounds.
/// The bounds are then three standard errors away. Means over as many other prompts differ from
/// these by 1.4 standard errors, so one in a hundred circuits that just pass misses a bound on
/// those prompts.
pub const STABLE: f64 = 0.999;
/// Number of set sizes that are measured in one block; the search ends after a block with a stable
/// set.
const BLOCK: usize = 8;

/// A circuit, and the sets that were measured in the search for it.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The circuit.
    pub chosen: Carried,
    /// The shares of the strongest heads, for each number of heads that was tried.
    pub curve: Vec<Carried>,
}

/// Chooses the fewest heads, strongest first, that are within both bounds in nearly all resamples
/// of the choosing prompts.
///
/// The search ends after the first block that has such a set. If no set is stable, the function
/// chooses the set that is within both bounds in the most resamples.
///
/// # Errors
/// [`CircuitError`], for example if fewer than two heads are ranked.
pub fn choose<B: Backend>(
    prompts: &Ablations<B>,
    ranked: &[Head],
    execution: &Execution,
) -> Result<Choice, CircuitError> {
    let mut curve: Vec<Carried> = Vec::new();
    for block in sizes(ranked.len()).chunks(BLOCK) {
        let sets: Vec<BTreeSet<Head>> = block.iter().map(|&n| ranked[..n].iter().copied().collect()).collect();
        curve.extend(prompts.carried(&sets, execution)?);
        if curve.iter().any(is_stable) {
            break;
        }
    }
    let chosen = pick(&curve).cloned().ok_or(CircuitError::TooFewHeads(ranked.len()))?;
    Ok(Choice { chosen, curve })
}

/// Returns the first stable set, or the most stable one.
fn pick(curve: &[Carried]) -> Option<&Carried> {
    curve.iter().find(|carried| is_stable(carried)).or_else(|| curve.iter().max_by(|a, b| better(a, b)))
}

fn is_stable(carried: &Carried) -> bool {
    carried.stability >= STABLE
}

fn better(a: &Carried, b: &Carried) -> std::cmp::Ordering {
    let by_distance = || b.shares.distance().total_cmp(&a.shares.distance());
    a.stability.total_cmp(&b.stability).then_with(by_distance)
}

/// Returns the numbers of heads to try: all up to 40, then at growing intervals.
fn sizes(heads: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (1..heads.min(41)).collect();
    while let Some(&last) = sizes.last() {
        let next = last + (last / 8).max(1);
        if next >= heads {
            break;
        }
        sizes.push(next);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faithfulness::Shares;

    fn carried(heads: usize, kept: f64, stability: f64) -> Carried {
        let heads = (0..heads).map(|head| Head::new(0, head)).collect();
        Carried { heads, shares: Shares { kept, left: 0.1 }, intervals: [[0.0; 2]; 2], stability }
    }

    #[test]
    fn search_takes_the_fewest_heads_that_hold_in_nearly_all_resamples() {
        // Two heads are within the bounds on these prompts, and outside them on a tenth of the
        // resamples.
        let curve = [carried(1, 0.5, 0.0), carried(2, 0.85, 0.9), carried(3, 0.95, 0.9995), carried(4, 1.0, 1.0)];
        assert_eq!(pick(&curve).unwrap().heads.len(), 3);
        assert_eq!(pick(&curve[..2]).unwrap().heads.len(), 2);
        let none = [carried(1, 0.2, 0.0), carried(2, 0.6, 0.0), carried(3, 1.9, 0.0)];
        assert_eq!(pick(&none).unwrap().heads.len(), 2, "the nearest, if no resample meets the bars");
        assert_eq!(pick(&[]), None);
    }

    #[test]
    fn searched_sizes_ascend_and_exclude_all_heads() {
        assert_eq!(sizes(5), [1, 2, 3, 4]);
        let of_gpt2 = sizes(144);
        assert!(of_gpt2.windows(2).all(|w| w[0] < w[1]) && of_gpt2.last().is_some_and(|n| *n < 144 && *n > 120));
    }
}
