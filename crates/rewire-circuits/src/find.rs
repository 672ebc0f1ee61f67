//! From ranked heads to a circuit that is judged on other prompts.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use ndarray::Array2;
use rewire_analysis::run::Execution;
use rewire_hooks::Head;

use crate::error::CircuitError;
use crate::faithfulness::{Ablations, Carried};
use crate::random::{Random, compare_with_random};
use crate::search::{Choice, choose};

/// A circuit, and the measurements that it was chosen and judged by.
#[derive(Debug, Clone)]
pub struct FoundCircuit {
    /// The circuit's heads with their strength, strongest first.
    pub members: Vec<(Head, f32)>,
    /// The shares of the strongest heads on the choosing prompts, for each number of heads that was
    /// tried.
    pub curve: Vec<Carried>,
    /// The circuit's shares on the choosing prompts.
    pub on_choosing: Carried,
    /// The circuit's shares on the judging prompts: the figures to report.
    pub judged: Carried,
    /// The shares of random heads on the judging prompts.
    pub random: Random,
}

/// Chooses a circuit on one set of prompts, judges it on another set, and compares it with random
/// heads on that other set.
///
/// `ranked` has the heads, strongest first ([`rank_heads`]). `seed` is the seed of the random
/// heads.
///
/// # Errors
/// [`CircuitError`], for example if fewer than two heads are ranked.
pub fn find_circuit<B: Backend>(
    choosing: &Ablations<B>,
    judging: &Ablations<B>,
    ranked: &[(Head, f32)],
    seed: u64,
    execution: &Execution,
) -> Result<FoundCircuit, CircuitError> {
    let heads: Vec<Head> = ranked.iter().map(|(head, _)| *head).collect();
    let Choice { chosen, curve } = choose(choosing, &heads, execution)?;
    let judged = judging.carried(std::slice::from_ref(&chosen.heads), execution)?.remove(0);
    let random = compare_with_random(judging, &heads, &chosen.heads, seed, execution)?;
    let members = ranked.iter().filter(|(head, _)| chosen.heads.contains(head)).copied().collect();
    Ok(FoundCircuit { members, curve, on_choosing: chosen, judged, random })
}

/// Ranks heads by the largest absolute value of their effects, strongest first. `maps` are
/// `[layer, head]`; `further` adds effects of single heads.
#[must_use]
pub fn rank_heads(maps: &[Array2<f32>], further: impl IntoIterator<Item = (Head, f32)>) -> Vec<(Head, f32)> {
    let mut strengths: BTreeMap<Head, f32> = BTreeMap::new();
    let of_maps = maps.iter().flat_map(|map| map.indexed_iter().map(|(place, effect)| (Head::from(place), *effect)));
    for (head, effect) in of_maps.chain(further) {
        let strength = strengths.entry(head).or_default();
        *strength = strength.max(effect.abs());
    }
    let mut ranked: Vec<(Head, f32)> = strengths.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn heads_are_ranked_by_their_largest_effect_of_any_sign() {
        let maps = [arr2(&[[0.1, -0.5], [0.3, 0.0]]), arr2(&[[0.2, 0.1], [0.0, 0.0]])];
        let ranked = rank_heads(&maps, [(Head::new(1, 1), -0.4)]);
        let expected = [((0, 1), 0.5), ((1, 1), 0.4), ((1, 0), 0.3), ((0, 0), 0.2)];
        assert_eq!(ranked, expected.map(|(place, strength)| (Head::from(place), strength)));
    }
}
