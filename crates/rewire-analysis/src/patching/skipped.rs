//! A bound on the effects of the nodes that a screen skipped, from patches of random subsets of
//! them (Kramár et al. 2024).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_model::Transformer;
use rewire_tasks::{Metric, PromptPairs};

use burn::tensor::backend::Backend;

use crate::error::AnalysisError;
use crate::node::index::{NodeIndex, node_at};
use crate::node::kind::{By, Node, NodeKind, Positions};
use crate::patching::groups::patch_groups;
use crate::patching::screen::Screened;
use crate::run::execution::Execution;
use crate::run::question::{Direction, Question};
use crate::stats::student;

/// Fewest subsets. Each node is in at least four of them.
pub const FEWEST_SUBSETS: usize = 20;

/// Settings for a bound from random subsets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubsetSampling {
    /// Number of subsets, each patched once. At least [`FEWEST_SUBSETS`].
    pub subsets: usize,
    /// Probability that the bound holds, 0.5 to below 1.
    pub confidence: f64,
    /// Seed for the draws of subsets.
    pub seed: u64,
}

/// A bound on the effects of skipped nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct SkippedBound {
    /// Number of subsets that were patched.
    pub subsets: usize,
    /// Number of subsets that hold each node.
    pub of_each: usize,
    /// Probability that the bound holds.
    pub confidence: f64,
    /// Upper bound on the absolute mean effect of every skipped node.
    pub bound: f32,
    /// The node that the bound comes from.
    pub node: NodeIndex,
    /// The estimated mean effect of that node.
    pub estimate: f32,
}

/// Bounds the effects of the nodes that [`screen_then_verify`](crate::patching::screen_then_verify)
/// skipped. Returns `None` if it skipped none.
///
/// Each subset holds a random tenth of the skipped nodes, and all nodes of a subset are patched
/// together. A node's effect is estimated by the mean effect of the subsets that hold it, less that
/// of the others. With probability `confidence`, the effect of the node of largest absolute effect
/// lies below its upper confidence limit (Welch's t, of one side), and so below the largest limit
/// of all nodes, which is the bound. It needs no correction for the number of nodes.
///
/// The effect of a node is here its effect among other patched nodes, on average over subsets. It
/// is the effect of the node alone if the effects of the nodes add up.
///
/// # Errors
/// As [`patch_groups`], and [`AnalysisError::TooFewSubsets`].
pub fn bound_skipped<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    screened: &Screened,
    sampling: SubsetSampling,
    direction: Direction,
    execution: &Execution,
) -> Result<Option<SkippedBound>, AnalysisError> {
    if sampling.subsets < FEWEST_SUBSETS {
        return Err(AnalysisError::TooFewSubsets { subsets: sampling.subsets, least: FEWEST_SUBSETS });
    }
    let skipped = skipped(screened);
    if skipped.is_empty() {
        return Ok(None);
    }
    let kinds: Vec<NodeKind> = screened.exact.effects.iter().map(|effects| effects.kind).collect();
    let node = |index: &NodeIndex| node_of(kinds[index.kind], &index.index, question.pairs);
    let members = draw(skipped.len(), sampling);
    let mut subsets: Vec<Vec<Node>> = vec![Vec::new(); sampling.subsets];
    for (place, of_node) in skipped.iter().zip(&members) {
        of_node.iter().for_each(|&subset| subsets[subset].push(node(place)));
    }
    // A subset without nodes changes nothing.
    let filled: Vec<Vec<Node>> = subsets.iter().filter(|subset| !subset.is_empty()).cloned().collect();
    let found = patch_groups(model, question, &filled, direction, execution)?;
    let mut means = found.mean().into_iter();
    let effects: Vec<f64> = subsets
        .iter()
        .map(|subset| if subset.is_empty() { 0.0 } else { means.next().map_or(0.0, f64::from) })
        .collect();
    let (largest, Limit { estimate, bound }) = members
        .iter()
        .map(|of_node| Limit::new(of_node, &effects, sampling.confidence))
        .enumerate()
        .max_by(|a, b| a.1.bound.total_cmp(&b.1.bound))
        .expect("at least one skipped node");
    Ok(Some(SkippedBound {
        subsets: sampling.subsets,
        of_each: of_each(sampling.subsets),
        confidence: sampling.confidence,
        bound: bound as f32,
        node: skipped[largest].clone(),
        estimate: estimate as f32,
    }))
}

/// Returns the nodes whose exact effect is not known.
fn skipped(screened: &Screened) -> Vec<NodeIndex> {
    let of_kind = |(kind, effects): (usize, &crate::effects::Effects)| {
        let mean = effects.mean();
        let unknown = mean.indexed_iter().filter(|(_, effect)| effect.is_nan());
        let indices: Vec<NodeIndex> = unknown
            .map(|(index, _)| NodeIndex { kind, index: ndarray::Dimension::slice(&index).to_vec() })
            .filter(|place| effects.kind.has(&place.index))
            .collect();
        indices
    };
    screened.exact.effects.iter().enumerate().flat_map(of_kind).collect()
}

fn node_of(kind: NodeKind, index: &[usize], pairs: &PromptPairs) -> Node {
    let node = node_at(kind, index);
    match (kind.by, pairs.marked_positions()) {
        (By::Marked, Some(marks)) => node.at(Positions::Each(marks.to_vec())),
        _ => node,
    }
}

/// Returns how many of the subsets hold each node.
fn of_each(subsets: usize) -> usize {
    (subsets / 10).max(4)
}

/// Draws the subsets that hold each node. All nodes are in equally many, and independent of each
/// other.
fn draw(nodes: usize, sampling: SubsetSampling) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
    let mut of_node = || {
        let mut all: Vec<usize> = (0..sampling.subsets).collect();
        let chosen = of_each(sampling.subsets);
        for place in 0..chosen {
            let left = (all.len() - place) as u64;
            all.swap(place, place + ((u64::from(rng.next_u32()) * left) >> 32) as usize);
        }
        all.truncate(chosen);
        all
    };
    (0..nodes).map(|_| of_node()).collect()
}

/// A node's estimated effect, and the upper confidence limit of its absolute value.
struct Limit {
    estimate: f64,
    bound: f64,
}

impl Limit {
    /// Compares the effects of the subsets `with` a node with those of all others.
    fn new(with: &[usize], effects: &[f64], confidence: f64) -> Self {
        let [held, others] = [true, false].map(|holds| {
            let chosen = effects.iter().enumerate().filter(|(subset, _)| with.contains(subset) == holds);
            Sample::new(chosen.map(|(_, effect)| *effect))
        });
        let estimate = held.mean - others.mean;
        let variance = held.of_mean + others.of_mean;
        if variance == 0.0 {
            return Self { estimate, bound: estimate.abs() };
        }
        // Welch and Satterthwaite's degrees of freedom; fewer give a wider limit.
        let degrees =
            variance.powi(2) / (held.of_mean.powi(2) / (held.n - 1.0) + others.of_mean.powi(2) / (others.n - 1.0));
        let t = student::two_sided(2.0 * confidence - 1.0, (degrees as usize).max(1));
        Self { estimate, bound: estimate.abs() + t * variance.sqrt() }
    }
}

/// The mean of some numbers, and the estimated variance of this mean.
struct Sample {
    n: f64,
    mean: f64,
    of_mean: f64,
}

impl Sample {
    fn new(numbers: impl Iterator<Item = f64> + Clone) -> Self {
        let n = numbers.clone().count() as f64;
        let mean = numbers.clone().sum::<f64>() / n;
        let squares = numbers.map(|number| (number - mean).powi(2)).sum::<f64>();
        Self { n, mean, of_mean: squares / (n - 1.0) / n }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(subsets: usize, seed: u64) -> SubsetSampling {
        SubsetSampling { subsets, confidence: 0.95, seed }
    }

    /// Returns the bound for nodes whose effects add up.
    fn bound(effects: &[f64], sampling: SubsetSampling) -> f64 {
        let members = draw(effects.len(), sampling);
        let mut of_subsets = vec![0.0; sampling.subsets];
        for (of_node, effect) in members.iter().zip(effects) {
            of_node.iter().for_each(|&subset| of_subsets[subset] += effect);
        }
        let limits = members.iter().map(|of_node| Limit::new(of_node, &of_subsets, sampling.confidence).bound);
        limits.fold(0.0, f64::max)
    }

    #[test]
    fn nodes_are_in_equally_many_subsets() {
        for (subsets, expected) in [(20, 4), (40, 4), (100, 10)] {
            for mut of_node in draw(50, sampling(subsets, 3)) {
                of_node.sort_unstable();
                of_node.dedup();
                assert_eq!(of_node.len(), expected);
                assert!(of_node.iter().all(|subset| *subset < subsets));
            }
        }
    }

    #[test]
    fn the_bound_holds_as_often_as_it_says() {
        // One node is larger than all others: the bound then depends on its limit alone.
        let mut effects: Vec<f64> = (0..60).map(|node| 0.02 * f64::from(node % 7) - 0.05).collect();
        effects[17] = -0.6;
        let holds = (0..1000).filter(|&seed| bound(&effects, sampling(50, seed)) >= 0.6).count();
        // 950 of 1000 within four standard deviations; more, because another node's limit may be
        // larger.
        assert!(holds >= 950 - 28, "{holds} of 1000");
    }

    #[test]
    fn more_subsets_give_a_closer_bound() {
        let effects: Vec<f64> = (0..100).map(|node| if node == 3 { 0.5 } else { 0.01 }).collect();
        let mean = |subsets| (0..20).map(|seed| bound(&effects, sampling(subsets, seed))).sum::<f64>() / 20.0;
        let (few, many) = (mean(40), mean(400));
        assert!(many < few && many < 0.56, "{few} {many}");
    }

    #[test]
    fn nodes_without_effects_have_the_bound_0() {
        assert_eq!(bound(&[0.0; 9], sampling(20, 0)), 0.0);
    }
}
