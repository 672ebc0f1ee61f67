//! MIB's figures: faithfulness by the size of the circuit, and the areas under the curve, with
//! bootstrap intervals.

use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_analysis::edges::{CircuitOutcome, EdgeSet};
use rewire_tasks::Clusters;

use crate::error::CircuitError;
use crate::selection::{EdgeScores, Ranking};

/// The sizes of MIB's circuits, as shares of all edges.
pub const SIZES: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Share of the resamples that an interval covers.
const LEVEL: f64 = 0.95;

/// Number of resamples of a bound that a search tests often.
const BOUND_RESAMPLES: usize = 400;

/// The circuits of the best edges at several sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct SizedCircuits {
    /// How edges are ranked.
    pub ranking: Ranking,
    /// The sizes, as shares of all edges.
    pub sizes: Vec<f64>,
    /// The number of edges before pruning: the share of all edges, rounded down.
    pub budgets: Vec<usize>,
    /// The circuits, pruned.
    pub circuits: Vec<EdgeSet>,
}

impl SizedCircuits {
    /// Takes the best edges at each size, and prunes them as MIB does.
    ///
    /// # Errors
    /// [`CircuitError::Sizes`] unless the sizes increase from above 0 to at most 1.
    pub fn new(scores: &EdgeScores, sizes: &[f64], ranking: Ranking) -> Result<Self, CircuitError> {
        check_sizes(sizes)?;
        let budgets: Vec<usize> = sizes.iter().map(|size| budget(*size, scores.graph.n_edges())).collect();
        let circuits = budgets.iter().map(|&n| scores.top(n, ranking).pruned()).collect();
        Ok(Self { ranking, sizes: sizes.to_vec(), budgets, circuits })
    }
}

/// Refuses sizes that are no increasing shares of all edges.
///
/// # Errors
/// [`CircuitError::Sizes`].
pub fn check_sizes(sizes: &[f64]) -> Result<(), CircuitError> {
    let is_share = |size: &f64| *size > 0.0 && *size <= 1.0;
    let increases = sizes.windows(2).all(|two| two[0] < two[1]);
    if !sizes.is_empty() && sizes.iter().all(is_share) && increases { Ok(()) } else { Err(CircuitError::Sizes) }
}

/// Returns the number of edges that a share of all edges is, rounded down as Python's
/// `int(share * edges)`.
fn budget(share: f64, edges: usize) -> usize {
    (share * edges as f64) as usize
}

/// Faithfulness by size, and the areas that MIB takes from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The faithfulness of each circuit: `(m(circuit) - m(empty)) / (m(model) - m(empty))`, where m
    /// is the mean of the metric over prompts and the empty circuit has no edges. 1 is the model.
    pub faithfulness: Vec<f64>,
    /// The circuit performance ratio: the area under the faithfulness, by the trapezoid rule over
    /// the sizes.
    pub cpr: f64,
    /// The circuit-model distance: the same area of `|1 - faithfulness|`.
    pub cmd: f64,
}

impl Curve {
    /// Returns the curve of circuits of these sizes.
    ///
    /// # Errors
    /// [`CircuitError::NoBehavior`] if the metric of the model is that of the empty circuit.
    pub fn new(sizes: &[f64], found: &CircuitOutcome) -> Result<Self, CircuitError> {
        let of = Self::weighted(sizes, found, &vec![1; found.empty.len()]);
        if of.faithfulness.iter().all(|f| f.is_finite()) { Ok(of) } else { Err(CircuitError::NoBehavior) }
    }

    /// Returns the mean of curves with one list of sizes.
    pub(crate) fn mean(curves: &[Self]) -> Self {
        let n = curves.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Self) -> f64| curves.iter().map(of).sum::<f64>() / n;
        let sizes = curves.first().map_or(0, |curve| curve.faithfulness.len());
        let faithfulness = (0..sizes).map(|size| mean(&|curve| curve.faithfulness[size])).collect();
        Self { faithfulness, cpr: mean(&|curve| curve.cpr), cmd: mean(&|curve| curve.cmd) }
    }

    /// Returns the curve on a resample, in which prompt `i` counts `times[i]` times.
    fn weighted(sizes: &[f64], found: &CircuitOutcome, times: &[u32]) -> Self {
        let sum = |values: &mut dyn Iterator<Item = &f32>| -> f64 {
            values.zip(times).map(|(value, times)| f64::from(*value) * f64::from(*times)).sum()
        };
        let (model, empty) = (sum(&mut found.baselines.clean.iter()), sum(&mut found.empty.iter()));
        let of_circuit = |metric: ndarray::ArrayView1<'_, f32>| (sum(&mut metric.iter()) - empty) / (model - empty);
        let faithfulness: Vec<f64> = found.values.columns().into_iter().map(of_circuit).collect();
        let area = |of: &dyn Fn(f64) -> f64| -> f64 {
            let trapezoid = |(size, f): (&[f64], &[f64])| (size[1] - size[0]) * (of(f[0]) + of(f[1])) / 2.0;
            sizes.windows(2).zip(faithfulness.windows(2)).map(trapezoid).sum()
        };
        let (cpr, cmd) = (area(&|f| f), area(&|f| (1.0 - f).abs()));
        Self { faithfulness, cpr, cmd }
    }

    /// Returns the figures in one list: the faithfulness at each size, CPR and CMD.
    fn figures(self) -> Vec<f64> {
        self.faithfulness.into_iter().chain([self.cpr, self.cmd]).collect()
    }
}

/// Intervals of the figures of a curve, each `[low, high]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CurveIntervals {
    /// Of the faithfulness at each size.
    pub faithfulness: Vec<[f64; 2]>,
    /// Of the circuit performance ratio.
    pub cpr: [f64; 2],
    /// Of the circuit-model distance.
    pub cmd: [f64; 2],
}

/// Curves of resamples of the prompts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resampled(Vec<Vec<f64>>);

impl Resampled {
    /// Adds the curves of `resamples` resamples of the clusters of prompts. A resample draws the
    /// same prompts for all circuits and for the unpatched runs.
    pub fn draw(&mut self, sizes: &[f64], found: &CircuitOutcome, clusters: &Clusters, resamples: usize, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let members: Vec<Vec<usize>> = members(clusters, found.empty.len());
        for _ in 0..resamples {
            let mut times = vec![0; found.empty.len()];
            for _ in 0..members.len() {
                let drawn = ((u64::from(rng.next_u32()) * members.len() as u64) >> 32) as usize;
                members[drawn].iter().for_each(|prompt| times[*prompt] += 1);
            }
            let figures = Curve::weighted(sizes, found, &times).figures();
            if figures.iter().all(|figure| figure.is_finite()) {
                self.0.push(figures);
            }
        }
    }

    /// Returns the 2.5% bootstrap bound of the faithfulness of one circuit over prompts.
    pub(crate) fn lower_bound(found: &CircuitOutcome, circuit: usize, seed: u64) -> f64 {
        let values = found.values.select(ndarray::Axis(1), &[circuit]);
        let of_circuit = CircuitOutcome { values, ..found.clone() };
        let mut resampled = Self::default();
        resampled.draw(&[1.0], &of_circuit, &Clusters::each(found.empty.len()), BOUND_RESAMPLES, seed);
        resampled.intervals().map_or(f64::NEG_INFINITY, |intervals| intervals.faithfulness[0][0])
    }

    /// Returns the 95% interval of the faithfulness of one circuit minus that of another on the
    /// same resamples. `None` without resamples.
    #[must_use]
    pub fn difference(&self, circuit: usize, other: usize) -> Option<[f64; 2]> {
        let differences: Vec<f64> = self.0.iter().map(|figures| figures[circuit] - figures[other]).collect();
        (!differences.is_empty()).then(|| interval(differences))
    }

    /// Returns the 95% percentile intervals. `None` without resamples.
    #[must_use]
    pub fn intervals(&self) -> Option<CurveIntervals> {
        let n = self.0.first()?.len();
        let of = |figure: usize| interval(self.0.iter().map(|figures| figures[figure]).collect());
        let faithfulness = (0..n - 2).map(of).collect();
        Some(CurveIntervals { faithfulness, cpr: of(n - 2), cmd: of(n - 1) })
    }
}

/// Returns the prompts of each cluster.
fn members(clusters: &Clusters, prompts: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); clusters.len()];
    (0..prompts).for_each(|prompt| members[clusters.of()[prompt]].push(prompt));
    members
}

/// Returns the bounds of the middle [`LEVEL`] of the values.
fn interval(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    [at((1.0 - LEVEL) / 2.0), at((1.0 + LEVEL) / 2.0)]
}

/// Returns a random half of `n` prompts and the other half, both in order. Clusters stay whole.
#[must_use]
pub fn halves(clusters: &Clusters, n: usize, seed: u64) -> [Vec<usize>; 2] {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order = members(clusters, n);
    for i in (1..order.len()).rev() {
        order.swap(i, ((u64::from(rng.next_u32()) * (i as u64 + 1)) >> 32) as usize);
    }
    let (first, second) = order.split_at(order.len() / 2);
    [first, second].map(|clusters| {
        let mut prompts = clusters.concat();
        prompts.sort_unstable();
        prompts
    })
}

/// Returns what was measured on some of the prompts.
///
/// # Panics
/// If there is no such prompt.
#[must_use]
pub fn on_prompts(found: &CircuitOutcome, prompts: &[usize]) -> CircuitOutcome {
    let of = |values: &[f32]| prompts.iter().map(|&prompt| values[prompt]).collect::<Vec<f32>>();
    let values = Array2::from_shape_fn((prompts.len(), found.values.ncols()), |(row, circuit)| {
        found.values[[prompts[row], circuit]]
    });
    let mut baselines = found.baselines.clone();
    (baselines.clean, baselines.corrupted) = (of(&found.baselines.clean), of(&found.baselines.corrupted));
    CircuitOutcome { metric: found.metric, baselines, empty: of(&found.empty), values }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;
    use rewire_analysis::Baselines;

    use super::*;

    fn outcome(values: Array2<f32>) -> CircuitOutcome {
        let n = values.nrows();
        let baselines = Baselines { clean: vec![3.0; n], corrupted: vec![-1.0; n] };
        CircuitOutcome { metric: "logit-diff", baselines, empty: vec![-1.0; n], values }
    }

    #[test]
    fn areas_are_those_of_the_trapezoid_rule() {
        // Faithfulness 0, 0.5 and 1.25.
        let of = Curve::new(&[0.1, 0.3, 1.0], &outcome(arr2(&[[-1.0, 1.0, 4.0]]))).unwrap();
        assert_eq!(of.faithfulness, [0.0, 0.5, 1.25]);
        assert!((of.cpr - (0.2 * 0.25 + 0.7 * 0.875)).abs() < 1e-12);
        assert!((of.cmd - (0.2 * 0.75 + 0.7 * 0.375)).abs() < 1e-12);
    }

    #[test]
    fn a_perfect_circuit_at_every_size_of_mib_has_the_largest_area() {
        let of = Curve::new(&SIZES, &outcome(Array2::from_elem((2, 10), 3.0))).unwrap();
        assert!((of.cpr - 0.999).abs() < 1e-12 && of.cmd.abs() < 1e-12);
    }

    #[test]
    fn a_model_without_the_behavior_is_refused() {
        let same = CircuitOutcome { empty: vec![3.0], ..outcome(arr2(&[[1.0]])) };
        assert!(matches!(Curve::new(&[1.0], &same), Err(CircuitError::NoBehavior)));
    }

    #[test]
    fn a_difference_is_taken_on_the_same_resamples() {
        // The circuits vary a lot over prompts, and the second is 1 logit lower on each of them.
        let values = Array2::from_shape_fn((12, 2), |(prompt, circuit)| prompt as f32 - circuit as f32);
        let mut resampled = Resampled::default();
        resampled.draw(&[0.0, 1.0], &outcome(values), &Clusters::each(12), 200, 7);
        let [low, high] = resampled.difference(0, 1).unwrap();
        assert!((low - 0.25).abs() < 1e-9 && (high - 0.25).abs() < 1e-9, "{low} to {high}");
        let of_one = resampled.intervals().unwrap().faithfulness[0];
        assert!(of_one[1] - of_one[0] > 0.3, "{of_one:?}");
        assert_eq!(Resampled::default().difference(0, 1), None);
    }

    #[test]
    fn budgets_are_rounded_down_as_in_python() {
        assert_eq!(SIZES.map(|size| budget(size, 479)), [0, 0, 2, 4, 9, 23, 47, 95, 239, 479]);
        assert_eq!(budget(0.001, 32_491), 32);
    }

    #[test]
    fn sizes_must_increase() {
        for sizes in [vec![], vec![0.0, 1.0], vec![0.5, 0.5], vec![0.1, 1.5], vec![f64::NAN]] {
            assert!(matches!(check_sizes(&sizes), Err(CircuitError::Sizes)), "{sizes:?}");
        }
        assert!(check_sizes(&SIZES).is_ok());
    }
}
