//! Correlations with activation patching over many generated pairs, because correlations on single
//! pairs vary widely.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use ndarray::{Array1, Array2, Axis};
use rewire_analysis::Effects;
use rewire_analysis::integrated::{IntegratedGradientsOptions, integrated_gradients};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Question};
use rewire_analysis::stats::{Bootstrap, IntervalKind, pearson};
use rewire_model::Transformer;
use rewire_tasks::{Clusters, LogitDiff, PromptPairs};

use super::analyze::KINDS;
use super::incomplete::incomplete;
use super::literal::literal_first_node;
use crate::setup::complete;
use crate::{Setup, StudyError};

/// The attributions that are correlated with patching, and the difference of their correlations.
pub const FIGURES: [&str; 3] = ["one gradient", "integral", "integral less one gradient"];
/// Pearson's correlations over the nodes of each pair.
pub struct Averaged {
    /// Number of pairs.
    pub n: usize,
    /// Seed of the generated pairs and of the bootstrap.
    pub seed: u64,
    /// The correlations for each of [`KINDS`].
    pub correlations: [PairCorrelations; 2],
    /// A sentence for each kind of node with layers whose attributions do not sum to the change of
    /// the metric within the tolerance.
    pub incomplete: Vec<String>,
}

/// The correlations for one kind of node. A pair has no correlation and is left out if a method
/// gives every node the same score.
pub struct PairCorrelations {
    /// Correlations `[pair, figure]`, figures in the order of [`FIGURES`].
    pub values: Array2<f32>,
    /// Clusters of the pairs that have correlations.
    clusters: Clusters,
}

/// The mean of one figure over pairs, with its 95% bootstrap interval. If there are too few
/// clusters of pairs, it has the range in place of the interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f32,
    /// The ends of the interval or the range.
    pub ends: [f32; 2],
    /// Whether the ends are those of an interval.
    pub is_interval: bool,
}

/// Computes patching, the notebook's one gradient and the integral on each pair, to the corrupted
/// baseline, and their correlations.
pub(super) fn averaged<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    pairs: &PromptPairs,
    seed: u64,
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
) -> Result<Averaged, StudyError> {
    let metric = LogitDiff::new(pairs);
    let question = Question::new(pairs, &metric).in_metric_units();
    let kinds = KINDS.map(|(kind, _)| kind);
    let execution = setup.execution(model, pairs.width());
    let integrated = setup.share("generated pairs: integrated gradients", execution, |execution| {
        integrated_gradients(model, question, &kinds, integral, execution)
    })?;
    let exact = setup.share("generated pairs: activation patching", execution, |execution| {
        activation_patching(&model.valid(), question, &kinds, Direction::Noising, execution)
    })?;
    let (exact, integrated) = (complete(exact)?, complete(integrated)?);
    let literal = literal_first_node(model, question, &kinds, integral.baseline.clone(), &execution)?;
    let clusters = pairs.clusters();
    let correlations = [0, 1].map(|kind| {
        let figures = [&literal.outcome.effects[kind], &integrated.outcome.effects[kind]];
        let (kept, values) = correlations(&exact.effects[kind], figures);
        PairCorrelations { values, clusters: clusters.restricted_to(&kept) }
    });
    let incomplete = incomplete("generated pairs, corrupted baseline", &integrated.completeness);
    Ok(Averaged { n: pairs.len(), seed, correlations, incomplete })
}

/// Returns the indices of the pairs that have correlations, and the correlations `[pair, figure]`:
/// of each of the two figures with the exact effects, and the second correlation minus the first.
fn correlations(exact: &Effects, figures: [&Effects; 2]) -> (Vec<usize>, Array2<f32>) {
    let of_pair = |pair: usize, figure: &Effects| {
        let [figure, exact] = [figure, exact].map(|effects| effects.values.index_axis(Axis(0), pair));
        pearson(figure.iter().copied().zip(exact.iter().copied()))
    };
    let rows = (0..exact.values.shape()[0]).filter_map(|pair| {
        let [one, integral] = [of_pair(pair, figures[0])?, of_pair(pair, figures[1])?];
        Some((pair, [one as f32, integral as f32, (integral - one) as f32]))
    });
    let (kept, rows): (Vec<_>, Vec<_>) = rows.unzip();
    (kept, Array2::from(rows))
}

impl Averaged {
    /// Returns the mean of each of [`FIGURES`] for one of [`KINDS`]; `None` if no pair has a
    /// correlation.
    #[must_use]
    pub fn means(&self, kind: usize) -> Option<[Mean; 3]> {
        let PairCorrelations { values, clusters } = &self.correlations[kind];
        if values.is_empty() {
            return None;
        }
        let effects = Effects::new(KINDS[kind].0, values.clone().into_dyn(), Vec::new());
        let intervals = effects.intervals(clusters, Bootstrap { seed: self.seed, ..Bootstrap::default() });
        let mean: Array1<f32> = values.sum_axis(Axis(0)) / values.nrows() as f32;
        Some([0, 1, 2].map(|figure| {
            let alone = [mean[figure]; 2];
            let ends = intervals.as_ref().map_or(alone, |found| [found.low[[figure]], found.high[[figure]]]);
            let is_interval = intervals.as_ref().is_some_and(|i| matches!(i.kind, IntervalKind::Bootstrap { .. }));
            Mean { mean: mean[figure], ends, is_interval }
        }))
    }

    /// Returns a sentence with the conclusion for one of [`KINDS`].
    #[must_use]
    pub fn conclusion(&self, kind: usize) -> String {
        let nodes = KINDS[kind].1;
        match self.means(kind) {
            Some([.., Mean { ends: [low, high], is_interval: true, .. }]) if high < 0.0 || low > 0.0 => {
                let which = if high < 0.0 { "the one gradient" } else { "the integral" };
                format!("{nodes}: {which} follows activation patching more closely")
            }
            Some([.., Mean { is_interval: true, .. }]) => {
                format!("{nodes}: on these pairs neither follows activation patching more closely")
            }
            Some(_) => format!("{nodes}: too few pairs for a conclusion"),
            None => format!("{nodes}: no pair has a correlation"),
        }
    }
}

impl Mean {
    /// Formats the mean with its interval or range: `0.640 (0.610 to 0.665)`.
    #[must_use]
    pub fn text(&self) -> String {
        let Mean { mean, ends: [low, high], is_interval } = self;
        let what = if *is_interval { "" } else { "range " };
        format!("{mean:.3} ({what}{low:.3} to {high:.3})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn averaged_of(rows: &[[f32; 3]]) -> Averaged {
        let values = Array2::from(rows.to_vec());
        let of_kind = || PairCorrelations { values: values.clone(), clusters: Clusters::each(rows.len()) };
        Averaged { n: rows.len(), seed: 1, correlations: [of_kind(), of_kind()], incomplete: Vec::new() }
    }

    #[test]
    fn correlations_are_computed_per_pair() {
        let effects = |values: [f32; 6]| {
            let values = Array2::from_shape_vec((2, 3), values.to_vec()).unwrap().into_dyn();
            Effects::new(KINDS[1].0, values, Vec::new())
        };
        let exact = effects([1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        let one = effects([1.0, 2.0, 3.0, 3.0, 2.0, 1.0]);
        let integral = effects([3.0, 2.0, 1.0, 3.0, 2.0, 1.0]);
        let (kept, found) = correlations(&exact, [&one, &integral]);
        assert_eq!(kept, [0, 1]);
        assert_eq!(found, ndarray::arr2(&[[1.0, -1.0, -2.0], [-1.0, -1.0, 0.0]]));
        // A pair whose nodes all have the same score has no correlation.
        let flat = effects([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
        assert_eq!(correlations(&exact, [&flat, &integral]).0, [0]);
    }

    #[test]
    fn the_conclusion_follows_the_interval_of_the_difference() {
        let rows = |difference: [f32; 6]| difference.map(|d| [0.5, 0.5 + d, d]);
        let says = |difference| averaged_of(&rows(difference)).conclusion(0);
        assert!(says([-0.1, -0.2, -0.1, -0.2, -0.1, -0.2]).contains("the one gradient follows"));
        assert!(says([0.1, 0.2, 0.1, 0.2, 0.1, 0.2]).contains("the integral follows"));
        assert!(says([-0.1, 0.1, -0.2, 0.2, -0.3, 0.3]).contains("neither"));
        assert!(averaged_of(&rows([0.1; 6])[..4]).conclusion(0).contains("too few"));
        let few = averaged_of(&[[0.5, 0.7, 0.2], [0.1, 0.3, 0.2]]).means(0).unwrap();
        assert_eq!(few[0].text(), "0.300 (range 0.100 to 0.500)");
    }
}
