//! MIB's figures of a scoring, judged on its own prompts and on prompts that had no part in the
//! choice.

use std::collections::HashMap;

use burn::tensor::backend::Backend;
use ndarray::Array2;
use rewire_analysis::edges::{CircuitOutcome, EdgeEffects, EdgeSet, evaluate_circuits};
use rewire_analysis::run::{Execution, Intervention, Question};
use rewire_model::Transformer;
use rewire_tasks::Metric;

use crate::curve::{Curve, CurveIntervals, Resampled, SizedCircuits, halves, on_prompts};
use crate::error::CircuitError;
use crate::selection::{EdgeScores, Ranking};

/// Number of resamples of the prompts.
const RESAMPLES: usize = 1000;
/// Number of random halves of the prompts for the choice, and of resamples for each.
const SPLITS: usize = 10;
/// Fewest clusters of prompts that are divided into halves.
const FEWEST: usize = 4;

/// How the circuits of a scoring are taken and judged.
#[derive(Debug, Clone)]
pub struct Judging<'a, B: Backend> {
    /// The sizes, as shares of all edges.
    pub sizes: &'a [f64],
    /// How edges are ranked.
    pub ranking: Ranking,
    /// What fills the edges outside.
    pub outside: &'a Intervention<B>,
    /// The seed of the resamples and of the halves.
    pub seed: u64,
}

/// The circuits of a scoring, and MIB's figures of them.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedCurve {
    /// The circuits.
    pub sized: SizedCircuits,
    /// The metric of each circuit on each prompt.
    pub outcome: CircuitOutcome,
    /// The figures on all prompts.
    pub curve: Curve,
    /// 95% bootstrap intervals over clusters of prompts, for these circuits. `None` for fewer than
    /// four clusters.
    pub over_prompts: Option<CurveIntervals>,
    /// The figures where the choice has other prompts than the judgment. `None` if the scores of
    /// each prompt are not known, and for fewer than four clusters.
    pub over_choice: Option<ChoiceCurve>,
}

/// MIB's figures over random halves of the prompts: circuits are chosen on one half, and judged on
/// the other.
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceCurve {
    /// The mean over the halves.
    pub mean: Curve,
    /// 95% intervals over the halves, and over resamples of the judging prompts in each.
    pub intervals: CurveIntervals,
}

/// Evaluates the circuits of the best edges by these scores. The choice of the scores' prompts is
/// the caller's: the figures are too good if they are these prompts.
///
/// # Errors
/// [`CircuitError::Sizes`], [`CircuitError::NoBehavior`], and [`CircuitError::Analysis`] if a run
/// fails.
pub fn judge_scores<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    scores: &EdgeScores,
    judging: &Judging<B>,
    execution: &Execution,
) -> Result<JudgedCurve, CircuitError> {
    let sized = SizedCircuits::new(scores, judging.sizes, judging.ranking)?;
    let outcome = evaluate_each(model, question, &sized.circuits, judging.outside, execution)?;
    let curve = Curve::new(judging.sizes, &outcome)?;
    let clusters = question.pairs.clusters();
    let mut resampled = Resampled::default();
    if clusters.len() >= FEWEST {
        resampled.draw(judging.sizes, &outcome, &clusters, RESAMPLES, judging.seed);
    }
    Ok(JudgedCurve { sized, outcome, curve, over_prompts: resampled.intervals(), over_choice: None })
}

/// Evaluates the circuits of the best edges by these effects, and the choice itself: circuits
/// chosen by the effects on one half of the prompts are judged on the other half.
///
/// # Errors
/// As [`judge_scores`].
pub fn judge_effects<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    effects: &EdgeEffects,
    judging: &Judging<B>,
    execution: &Execution,
) -> Result<JudgedCurve, CircuitError> {
    let of_all = judge_scores(model, question, &EdgeScores::of(effects), judging, execution)?;
    if effects.values.len_of(ndarray::Axis(0)) != question.pairs.len() {
        return Ok(of_all);
    }
    let choose = &mut |choosing: &[usize]| Ok(EdgeScores::on(effects, choosing));
    let over_choice = judge_choice(model, question, judging, SPLITS, choose, execution)?;
    Ok(JudgedCurve { over_choice, ..of_all })
}

/// Judges a way to score edges: `choose` scores them by one random half of the prompts, and the
/// circuits of the best edges are judged on the other half. Repeats this for `n_halves` halves,
/// whose seeds follow that of `judging`. Returns `None` for fewer than four clusters of prompts,
/// and if the model does not do the task on any judging half.
///
/// # Errors
/// As [`judge_scores`], and those of `choose`.
pub fn judge_choice<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    judging: &Judging<B>,
    n_halves: usize,
    choose: &mut dyn FnMut(&[usize]) -> Result<EdgeScores, CircuitError>,
    execution: &Execution,
) -> Result<Option<ChoiceCurve>, CircuitError> {
    let (clusters, n) = (question.pairs.clusters(), question.pairs.len());
    if clusters.len() < FEWEST {
        return Ok(None);
    }
    let splits: Vec<[Vec<usize>; 2]> =
        (0..n_halves as u64).map(|split| halves(&clusters, n, judging.seed.wrapping_add(split))).collect();
    let mut circuits: Vec<EdgeSet> = Vec::new();
    for [choosing, _] in &splits {
        circuits.extend(SizedCircuits::new(&choose(choosing)?, judging.sizes, judging.ranking)?.circuits);
    }
    let found = evaluate_each(model, question, &circuits, judging.outside, execution)?;
    let (mut resampled, mut curves) = (Resampled::default(), Vec::new());
    for (split, [_, others]) in splits.iter().enumerate() {
        let from = split * judging.sizes.len();
        let columns: Vec<usize> = (from..from + judging.sizes.len()).collect();
        let values = found.values.select(ndarray::Axis(1), &columns);
        let of_split = on_prompts(&CircuitOutcome { values, ..found.clone() }, others);
        // A half on which the model does not do the task has no figures.
        let Ok(curve) = Curve::new(judging.sizes, &of_split) else { continue };
        curves.push(curve);
        let seed = judging.seed.wrapping_add(split as u64);
        let resamples = RESAMPLES / n_halves.clamp(1, RESAMPLES);
        resampled.draw(judging.sizes, &of_split, &clusters.restricted_to(others), resamples, seed);
    }
    Ok(resampled.intervals().map(|intervals| ChoiceCurve { mean: Curve::mean(&curves), intervals }))
}

/// Evaluates circuits, each of those that are equal once.
fn evaluate_each<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    circuits: &[EdgeSet],
    outside: &Intervention<B>,
    execution: &Execution,
) -> Result<CircuitOutcome, CircuitError> {
    let mut places: HashMap<&EdgeSet, usize> = HashMap::new();
    let mut different: Vec<EdgeSet> = Vec::new();
    let mut place_of = |circuit| {
        *places.entry(circuit).or_insert_with(|| {
            different.push(EdgeSet::clone(circuit));
            different.len() - 1
        })
    };
    let columns: Vec<usize> = circuits.iter().map(&mut place_of).collect();
    let found = evaluate_circuits(model, question, &different, outside, execution)?;
    let values: Array2<f32> = found.values.select(ndarray::Axis(1), &columns);
    Ok(CircuitOutcome { values, ..found })
}
