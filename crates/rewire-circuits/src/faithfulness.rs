//! Faithfulness: how much of the behavior a set of heads carries, per prompt, with bootstrap
//! intervals over prompts.

use std::collections::BTreeSet;

use burn::tensor::backend::Backend;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_analysis::node::{Component, Node};
use rewire_analysis::patching::ablate_groups;
use rewire_analysis::run::{Execution, Intervention, Question};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};

use crate::error::CircuitError;

/// Bounds on the share of the clean logit difference that a circuit keeps if all other heads are
/// mean-ablated.
pub const KEPT: [f64; 2] = [0.8, 1.2];
/// Bounds on the share of the clean logit difference that is left if a circuit's heads are
/// mean-ablated.
pub const LEFT: [f64; 2] = [-0.2, 0.2];

/// Number of bootstrap resamples of the prompts, and the share of the resamples that an interval
/// covers.
const RESAMPLES: usize = 1000;
const LEVEL: f64 = 0.95;

/// Mean logit differences as shares of the mean clean logit difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// The share if the heads of a set are kept and all others are mean-ablated.
    pub kept: f64,
    /// The share if the heads of a set are mean-ablated and all others are kept.
    pub left: f64,
}

impl Shares {
    /// Returns whether both shares are within their bounds, [`KEPT`] and [`LEFT`].
    #[must_use]
    pub fn meet_the_bars(self) -> bool {
        let within = |share: f64, [low, high]: [f64; 2]| share >= low && share <= high;
        within(self.kept, KEPT) && within(self.left, LEFT)
    }

    /// Returns the distance from a perfect circuit, which keeps everything and without which
    /// nothing is left: 0 is best.
    #[must_use]
    pub fn distance(self) -> f64 {
        (self.kept - 1.0).abs() + self.left.abs()
    }
}

/// The share of the behavior that a set of heads carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// The heads.
    pub heads: BTreeSet<Head>,
    /// The shares on all prompts.
    pub shares: Shares,
    /// The 95% percentile bootstrap intervals over prompts, of the share kept and of the share
    /// left.
    pub intervals: [[f64; 2]; 2],
    /// Share of the resamples in which both shares are within their bounds.
    pub stability: f64,
}

/// Mean ablations of sets of heads on a set of prompts, in groups that have their own means.
pub struct Ablations<'a, B: Backend> {
    model: &'a Transformer<B>,
    groups: Vec<(PromptPairs, &'a Intervention<B>)>,
    seed: u64,
}

impl<'a, B: Backend> Ablations<'a, B> {
    /// Takes prompts in groups, such as one group per template and length, each with the mean
    /// outputs that replace ablated heads' outputs ([`means_by`](crate::means_by)). `seed` is the
    /// seed of the bootstrap.
    ///
    /// # Errors
    /// [`CircuitError::NoPrompts`] if there is no group.
    pub fn new(
        model: &'a Transformer<B>,
        groups: Vec<(PromptPairs, &'a Intervention<B>)>,
        seed: u64,
    ) -> Result<Self, CircuitError> {
        if groups.is_empty() {
            return Err(CircuitError::NoPrompts);
        }
        Ok(Self { model, groups, seed })
    }

    /// Returns the number of tokens of the longest prompt.
    #[must_use]
    pub fn width(&self) -> usize {
        self.groups.iter().map(|(pairs, _)| pairs.width()).max().unwrap_or(0)
    }

    /// Measures the share of the behavior that each set of heads carries.
    ///
    /// # Errors
    /// [`CircuitError::Analysis`] if an ablation fails.
    pub fn carried(&self, sets: &[BTreeSet<Head>], execution: &Execution) -> Result<Vec<Carried>, CircuitError> {
        let ablated_in =
            |set: &BTreeSet<Head>| [self.nodes(|head| !set.contains(head)), self.nodes(|head| set.contains(head))];
        let groups: Vec<Vec<Node>> = sets.iter().flat_map(ablated_in).collect();
        let (mut clean, mut ablated) = (Vec::new(), vec![Vec::new(); groups.len()]);
        for (pairs, mean) in &self.groups {
            let metric = LogitDiff::new(pairs);
            let question = Question::new(pairs, &metric).in_metric_units();
            let found = ablate_groups(self.model, question, &groups, mean, execution)?;
            for (changes, ablated) in found.values.columns().into_iter().zip(&mut ablated) {
                ablated.extend(changes.iter().zip(&found.baselines.clean).map(|(change, clean)| clean + change));
            }
            clean.extend(found.baselines.clean);
        }
        Ok(shares(&clean, &ablated, sets, self.seed))
    }

    fn nodes(&self, chosen: impl Fn(&Head) -> bool) -> Vec<Node> {
        let config = self.model.config();
        let all = (0..config.n_layers).flat_map(|layer| (0..config.n_heads).map(move |head| Head::new(layer, head)));
        all.filter(chosen).map(|head| Node::new(head.layer, Component::HeadZ).unit(head.head)).collect()
    }
}

/// Returns the shares of each set from the logit differences per prompt: `clean`, and two entries
/// of `ablated` per set, with all other heads ablated and with the set ablated.
fn shares(clean: &[f32], ablated: &[Vec<f32>], sets: &[BTreeSet<Head>], seed: u64) -> Vec<Carried> {
    let of_set = |shares: &[f64], set: usize| Shares { kept: shares[2 * set], left: shares[2 * set + 1] };
    let all = weighted(clean, ablated, &vec![1; clean.len()]);
    let resampled = resampled(clean, ablated, seed);
    let carried = |(i, heads): (usize, &BTreeSet<Head>)| {
        let of_resamples: Vec<Shares> = resampled.iter().map(|shares| of_set(shares, i)).collect();
        let met = of_resamples.iter().filter(|shares| shares.meet_the_bars()).count();
        Carried {
            heads: heads.clone(),
            shares: of_set(&all, i),
            intervals: [interval(of_resamples.iter().map(|s| s.kept)), interval(of_resamples.iter().map(|s| s.left))],
            stability: met as f64 / RESAMPLES as f64,
        }
    };
    sets.iter().enumerate().map(carried).collect()
}

/// Returns the share of each group in every resample of the prompts. A resample draws the same
/// prompts for all groups and for the clean logit difference.
fn resampled(clean: &[f32], ablated: &[Vec<f32>], seed: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = clean.len();
    let resample = |_| {
        let mut times = vec![0; n];
        for _ in 0..n {
            times[((u64::from(rng.next_u32()) * n as u64) >> 32) as usize] += 1;
        }
        weighted(clean, ablated, &times)
    };
    (0..RESAMPLES).map(resample).collect()
}

/// Returns each group's summed logit difference divided by the clean sum. Prompt `i` counts
/// `times[i]` times.
fn weighted(clean: &[f32], ablated: &[Vec<f32>], times: &[u32]) -> Vec<f64> {
    let sum =
        |values: &[f32]| values.iter().zip(times).map(|(v, times)| f64::from(*v) * f64::from(*times)).sum::<f64>();
    let clean = sum(clean);
    ablated.iter().map(|values| sum(values) / clean).collect()
}

/// Returns the bounds of the middle [`LEVEL`] of the values.
fn interval(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let at = |share: f64| values[(share * last as f64).round() as usize];
    [at((1.0 - LEVEL) / 2.0), at((1.0 + LEVEL) / 2.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(kept: &[f32], left: &[f32], clean: &[f32]) -> Carried {
        shares(clean, &[kept.to_vec(), left.to_vec()], &[BTreeSet::from([Head::new(0, 0)])], 3).remove(0)
    }

    #[test]
    fn kept_shares_are_ratios_of_means() {
        // The ratios of the two prompts are 1 and 0, and their mean is 0.5; the ratio of the means
        // is 1 / 4.
        let of = carried(&[1.0, 0.0], &[0.5, 0.5], &[1.0, 3.0]);
        assert_eq!(of.shares, Shares { kept: 0.25, left: 0.25 });
    }

    #[test]
    fn a_circuit_that_keeps_too_much_misses_the_bars() {
        for (kept, left, meets) in [
            (0.8, 0.2, true),
            (1.2, -0.2, true),
            (1.0, 0.0, true),
            (0.79, 0.0, false),
            (1.27, -0.12, false),
            (1.0, 0.21, false),
            (1.0, -0.21, false),
            (f64::NAN, 0.0, false),
        ] {
            assert_eq!(Shares { kept, left }.meet_the_bars(), meets, "{kept} {left}");
        }
    }

    #[test]
    fn share_intervals_match_the_delta_method() {
        // Every prompt keeps exactly half, so every resample does, however the clean values vary.
        let clean: Vec<f32> = (1..=40).map(|i| i as f32).collect();
        let half: Vec<f32> = clean.iter().map(|v| v / 2.0).collect();
        let scattered: Vec<f32> = clean.iter().map(|v| if v % 2.0 == 0.0 { 2.0 * v } else { 0.0 }).collect();
        let of = carried(&half, &scattered, &clean);
        assert_eq!(of.intervals[0], [0.5, 0.5]);
        // The standard error of a ratio of means by the delta method. An interval extends about two
        // standard errors to either side.
        let (mean, share) = (20.5, of.shares.left);
        let residual = |(x, y): (&f32, &f32)| (f64::from(*y) - share * f64::from(*x)).powi(2);
        let error = (clean.iter().zip(&scattered).map(residual).sum::<f64>() / 39.0 / 40.0).sqrt() / mean;
        let [low, high] = of.intervals[1];
        assert!((high - low - 2.0 * 1.96 * error).abs() < 0.15 * (high - low), "{low} {high} {error}");
        assert!(of.stability < 0.01, "half is no circuit");
        assert_eq!(of, carried(&half, &scattered, &clean));
    }

    #[test]
    fn stability_is_the_share_of_resamples_that_meet_both_bars() {
        let clean = vec![1.0; 50];
        assert_eq!(carried(&clean, &[0.0; 50], &clean).stability, 1.0);
        // The mean kept share is 0.8, exactly at the bound: about half of the resamples are above
        // it.
        let at_the_bar: Vec<f32> = (0..50).map(|i| if i % 2 == 0 { 0.3 } else { 1.3 }).collect();
        let of = carried(&at_the_bar, &[0.0; 50], &clean);
        assert!((0.4..0.7).contains(&of.stability), "{}", of.stability);
    }
}
