//! Circuits of edges: found on some prompts, and judged on others.
//!
//! [`Halves`] divides the prompts, and [`find`] searches a circuit on one half and compares it with
//! random circuits on the other. [`shares`] gives the share of the behavior that circuits keep.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::Reduce;
use rewire_analysis::edges::{
    CircuitOutcome, CircuitRuns, EdgeSet, GradientsAt, attribute_all_edges, evaluate_circuits, patch_all_edges,
};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::run::{Direction, Execution, Intervention, Question};
use rewire_circuits::{
    CircuitError, CircuitFile, Curve, EdgeScores, Ranking, Resampled, Shrunk, acdc, exact_greedy, halves,
    random_circuits,
};
use rewire_model::{BackwardRule, Transformer};
use rewire_tasks::{Clusters, LogitDiff, PairsError, PromptPair, PromptPairs};

use crate::{Setup, StudyError};

/// Number of random circuits of the same size.
pub const RANDOM: usize = 20;
/// Number of resamples of the prompts.
const RESAMPLES: usize = 1000;
/// Fewest clusters of prompts that are divided into halves or resampled.
const FEWEST: usize = 4;

/// How a circuit is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Search {
    /// The best edges by score.
    TopN {
        /// Number of edges.
        edges: usize,
        /// How edges are ranked.
        ranking: Ranking,
    },
    /// The best edges by score, each into a node whose output the circuit carries already.
    Greedy {
        /// Number of edges.
        edges: usize,
        /// How edges are ranked.
        ranking: Ranking,
    },
    /// Every edge whose removal raises the loss by less than a threshold is removed ([`acdc`]).
    Acdc {
        /// The threshold, in logits.
        threshold: f64,
    },
    /// The fewest edges that keep a share of the behavior with 95% confidence ([`exact_greedy`]).
    ExactGreedy {
        /// The share.
        keep: f64,
    },
}

/// The scores by which edges are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Edge attribution patching (EAP).
    Eap,
    /// EAP with gradients averaged over a line of inputs, in five steps.
    EapIgInputs,
    /// EAP with gradients averaged over a line of activations, in five steps.
    EapIgActivations,
    /// EAP with the backward rule RelP.
    Relp,
    /// EAP with the backward rule GIM.
    Gim,
    /// Each edge patched exactly.
    Exact,
}

/// The settings of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The search.
    pub search: Search,
    /// The scores. [`Search::Acdc`] does not use them.
    pub scores: Scores,
    /// Seed of the bootstrap, of the shuffled labels and of random circuits.
    pub seed: u64,
    /// Number of threads; `None` for one per core.
    pub workers: Option<usize>,
}

/// The prompts of the choice and of the judgment.
#[derive(Debug, Clone)]
pub struct Halves {
    /// The prompts that choose the circuit.
    pub choosing: PromptPairs,
    /// The prompts that judge it.
    pub judging: PromptPairs,
    /// Whether there are too few prompts to divide, so that both are all prompts.
    pub are_same: bool,
}

impl Halves {
    /// Divides the prompts at random. Clusters stay whole; fewer than four are not divided.
    ///
    /// # Errors
    /// [`PairsError`] if a half is not valid alone.
    pub fn new(pairs: &PromptPairs, seed: u64) -> Result<Self, PairsError> {
        let clusters = pairs.clusters();
        let some = |prompts: &[usize]| PromptPairs::new(prompts.iter().map(|&i| pairs.pairs()[i].clone()).collect());
        if clusters.len() < FEWEST {
            return Ok(Self { choosing: pairs.clone(), judging: pairs.clone(), are_same: true });
        }
        let [choosing, judging] = halves(&clusters, pairs.len(), seed);
        Ok(Self { choosing: some(&choosing)?, judging: some(&judging)?, are_same: false })
    }
}

/// A found circuit and its judgment.
#[derive(Debug, Clone)]
pub struct Found {
    /// The circuit, with the scores of all edges.
    pub circuit: CircuitFile,
    /// The removals of a search that removes edges.
    pub search: Option<Shrunk>,
    /// Seconds that the search took.
    pub seconds: f64,
    /// The metric of the circuit, of all other edges, of the circuit of shuffled labels, and of
    /// [`RANDOM`] random circuits, on the judging prompts.
    pub outcome: CircuitOutcome,
    /// The share of the behavior of each, with the ends of its 95% interval ([`shares`]).
    pub shares: Vec<[f64; 3]>,
    /// Number of edges of the circuit that the same search finds for shuffled labels.
    pub shuffled_edges: usize,
}

/// Finds a circuit on the choosing prompts, and judges it on the judging prompts: every edge
/// outside a circuit carries the corrupted prompt. The metric is the logit difference.
///
/// # Errors
/// [`StudyError`]; [`StudyError::NoPath`] if no edge of the circuit is on a path to the logits.
pub fn find<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    halves: &Halves,
    settings: &Settings,
) -> Result<Found, StudyError> {
    let started = Instant::now();
    let (circuit, search) = settings.search(model, &halves.choosing, setup, "circuit")?;
    let seconds = started.elapsed().as_secs_f64();
    // Shuffled labels may leave no behavior to find.
    let shuffled = match settings.search(model, &shuffled(&halves.choosing, settings.seed), setup, "shuffled labels") {
        Ok((file, _)) => file.circuit,
        Err(_) => EdgeSet::empty(circuit.scores.graph),
    };
    let mut circuits = vec![circuit.circuit.clone(), circuit.circuit.complement(), shuffled.clone()];
    circuits.extend(random_circuits(&circuit.circuit, RANDOM, settings.seed));
    let inner = model.valid();
    let metric = LogitDiff::new(&halves.judging);
    let question = Question::new(&halves.judging, &metric).in_metric_units();
    let sizes = setup.execution(&inner, halves.judging.width());
    let outcome = setup.step("judgment", |progress| {
        let execution = Execution { progress, workers: settings.workers, ..sizes };
        evaluate_circuits(&inner, question, &circuits, &Intervention::Resample, &execution)
    })?;
    let shares = shares(&outcome, &halves.judging.clusters(), settings.seed)?;
    Ok(Found { circuit, search, seconds, outcome, shares, shuffled_edges: shuffled.len() })
}

/// Returns the share of the behavior that each circuit keeps, and the ends of its 95% bootstrap
/// interval over clusters of prompts. They are NaN for fewer than four clusters.
///
/// # Errors
/// [`CircuitError::NoBehavior`] if the metric of the model is that of the empty circuit.
pub fn shares(outcome: &CircuitOutcome, clusters: &Clusters, seed: u64) -> Result<Vec<[f64; 3]>, CircuitError> {
    // Sizes do not matter for the faithfulness.
    let places: Vec<f64> = (0..outcome.values.ncols()).map(|place| place as f64).collect();
    let curve = Curve::new(&places, outcome)?;
    let mut resampled = Resampled::default();
    if clusters.len() >= FEWEST {
        resampled.draw(&places, outcome, clusters, RESAMPLES, seed);
    }
    let intervals = resampled.intervals();
    let share = |(circuit, share): (usize, &f64)| {
        let [low, high] = intervals.as_ref().map_or([f64::NAN; 2], |found| found.faithfulness[circuit]);
        [*share, low, high]
    };
    Ok(curve.faithfulness.iter().enumerate().map(share).collect())
}

impl Settings {
    /// Finds a circuit on these prompts.
    fn search<B: AutodiffBackend>(
        &self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        setup: &Setup,
        what: &str,
    ) -> Result<(CircuitFile, Option<Shrunk>), StudyError> {
        let inner = model.valid();
        let metric = LogitDiff::new(pairs);
        let question = Question::new(pairs, &metric).in_metric_units();
        let sizes = setup.execution(&inner, pairs.width());
        let scores = setup.step(&format!("{what}: scores"), |progress| {
            let execution = Execution { progress, workers: self.workers, ..sizes };
            self.scores.of(model, question, &execution)
        })?;
        let (circuit, search) = match self.search {
            Search::TopN { edges, ranking } => (scores.top(edges, ranking).pruned(), None),
            Search::Greedy { edges, ranking } => (scores.greedy(edges, ranking).pruned(), None),
            Search::Acdc { threshold: bound } | Search::ExactGreedy { keep: bound } => {
                setup.step(&format!("{what}: tests"), |progress| {
                    let execution = Execution { workers: self.workers, ..sizes };
                    let runs = CircuitRuns::new(&inner, question, &Intervention::Resample, &execution)?;
                    let found = match self.search {
                        Search::Acdc { .. } => acdc(&runs, bound, progress)?,
                        _ => exact_greedy(&runs, &scores, bound, self.seed, progress)?,
                    };
                    Ok::<_, StudyError>((found.circuit.clone(), Some(found)))
                })?
            }
        };
        match circuit.is_empty() {
            true => Err(StudyError::NoPath),
            false => Ok((CircuitFile { circuit, scores, node_scores: None, warnings: Vec::new() }, search)),
        }
    }
}

impl Scores {
    /// Scores all edges, noising.
    fn of<B: AutodiffBackend>(
        self,
        model: &Transformer<B>,
        question: Question<'_, LogitDiff>,
        execution: &Execution,
    ) -> Result<EdgeScores, StudyError> {
        let line = Quadrature { rule: Rule::RiemannRight, steps: 5 };
        let (at, rule) = match self {
            Scores::Exact => {
                let found = patch_all_edges(&model.valid(), question, Reduce::Mean, Direction::Noising, execution)?;
                return Ok(EdgeScores::of(&found));
            }
            Scores::Eap => (GradientsAt::Base, BackwardRule::Gradient),
            Scores::EapIgInputs => (GradientsAt::Inputs(line), BackwardRule::Gradient),
            Scores::EapIgActivations => (GradientsAt::Activations(line), BackwardRule::Gradient),
            Scores::Relp => (GradientsAt::Base, BackwardRule::Relp),
            Scores::Gim => (GradientsAt::Base, BackwardRule::Gim),
        };
        let question = question.by_rule(rule);
        let found = attribute_all_edges(model, question, at, Reduce::Mean, Direction::Noising, execution)?;
        Ok(EdgeScores::of(&found))
    }
}

/// Returns the pairs with answers and wrong answers exchanged in a random half of them.
fn shuffled(pairs: &PromptPairs, seed: u64) -> PromptPairs {
    let [exchanged, _] = halves(&Clusters::each(pairs.len()), pairs.len(), seed);
    let exchange = |(i, pair): (usize, &PromptPair)| match exchanged.binary_search(&i) {
        Err(_) => pair.clone(),
        Ok(_) => {
            PromptPair { answers: pair.wrong_answers.clone(), wrong_answers: pair.answers.clone(), ..pair.clone() }
        }
    };
    // The same tokens were accepted before.
    PromptPairs::new(pairs.pairs().iter().enumerate().map(exchange).collect()).unwrap_or_else(|_| pairs.clone())
}
