//! Standard errors and intervals of a mean over prompts, with clusters of prompts.
//!
//! Statistics at a position are over the prompts that have the position.

use std::fmt;

use ndarray::{ArrayD, ArrayView1, Axis as Dimension, IxDyn, indices};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_tasks::Clusters;

use crate::effects::Effects;
use crate::node::kind::NodeKind;
use crate::stats::student;

/// Settings for a bootstrap of the mean over prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Share of the resampled means between the two ends of the interval, 0 to 1.
    pub level: f64,
    /// Number of resamples.
    pub resamples: usize,
    /// Seed for the draws of clusters.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { level: 0.95, resamples: 1000, seed: 0 }
    }
}

/// Smallest number of clusters for a bootstrap. Fewer clusters have hardly any distinct resamples,
/// and the interval would be too narrow.
pub const FEWEST_FOR_BOOTSTRAP: usize = 5;

/// The meaning of the ends of an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum IntervalKind {
    /// Ends of this share of the resampled means.
    Bootstrap {
        /// The share, 0 to 1.
        level: f64,
    },
    /// The smallest and the largest cluster mean.
    Range {
        /// Number of clusters.
        clusters: usize,
    },
}

impl IntervalKind {
    /// Returns the kind of interval that [`Effects::intervals`] makes for these clusters. `None`
    /// for fewer than two clusters, and for a bootstrap with 0 resamples.
    #[must_use]
    pub fn of(clusters: &Clusters, bootstrap: Bootstrap) -> Option<Self> {
        match clusters.len() {
            0 | 1 => None,
            few if few < FEWEST_FOR_BOOTSTRAP => Some(IntervalKind::Range { clusters: few }),
            _ => (bootstrap.resamples > 0).then_some(IntervalKind::Bootstrap { level: bootstrap.level }),
        }
    }
}

impl fmt::Display for IntervalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntervalKind::Bootstrap { level } => write!(f, "{}% interval", 100.0 * level),
            IntervalKind::Range { clusters } => write!(f, "range of {clusters} clusters"),
        }
    }
}

/// An interval for each node.
#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    /// The meaning of the ends.
    pub kind: IntervalKind,
    /// Lower ends, `[layer, ..]`.
    pub low: ArrayD<f32>,
    /// Upper ends, `[layer, ..]`.
    pub high: ArrayD<f32>,
}

impl Effects {
    /// Returns the standard error of the mean over prompts, `[layer, ..]`, on the effect scale. It
    /// allows for correlated effects within a cluster (Liang and Zeger 1986). With `n` prompts in
    /// `G` clusters it is
    ///
    /// ```text
    /// sqrt(G / (G - 1) * sum over clusters (sum over its prompts (effect - mean))^2) / n
    /// ```
    ///
    /// With clusters of equal size, it is the standard error of the mean of the cluster means. With
    /// clusters of one prompt, it is the standard error of the mean over prompts. `None` for fewer
    /// than two clusters. NaN for a node at a position that the prompts of fewer than two clusters
    /// have.
    ///
    /// # Panics
    /// If `clusters` has another number of prompts.
    #[must_use]
    pub fn standard_error(&self, clusters: &Clusters) -> Option<ArrayD<f32>> {
        let error = |values: &[f32], clusters: &Clusters| {
            let (n, groups) = (clusters.prompts() as f64, clusters.len() as f64);
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let mut sums = vec![0.0; clusters.len()];
            values.iter().zip(clusters.of()).for_each(|(&v, &cluster)| sums[cluster] += f64::from(v) - mean);
            let squares: f64 = sums.iter().map(|sum| sum * sum).sum();
            [(groups / (groups - 1.0) * squares).sqrt() as f32 / n as f32]
        };
        self.has_several(clusters).then(|| {
            let [errors] = self.by_node(clusters, |nodes, clusters| each(nodes, |node| error(node, clusters)));
            errors
        })
    }

    /// Returns a Student's t interval of the mean over prompts, `[layer, ..]` for each end. The
    /// ends are the mean less and plus [`standard_error`](Self::standard_error) times the quantile
    /// of Student's t with one degree of freedom less than there are clusters. The interval assumes
    /// that cluster means are normally distributed. Under this assumption it keeps its level with
    /// few clusters. `None` for fewer than two clusters.
    ///
    /// # Panics
    /// If `clusters` has another number of prompts.
    #[must_use]
    pub fn t_interval(&self, clusters: &Clusters, level: f64) -> Option<[ArrayD<f32>; 2]> {
        let [quantiles] = self.by_node(clusters, |nodes, clusters| {
            let quantile = student::two_sided(level, clusters.len() - 1) as f32;
            vec![[quantile]; nodes.len()]
        });
        let reach = self.standard_error(clusters)? * quantiles;
        let mean = self.mean();
        Some([&mean - &reach, mean + reach])
    }

    /// Returns intervals of the mean over prompts. From [`FEWEST_FOR_BOOTSTRAP`] clusters up, they
    /// are percentile bootstrap intervals (Efron 1979; over clusters: Cameron, Gelbach and Miller
    /// 2008). Each resample draws clusters with replacement, the same for all nodes, and takes the
    /// mean over their prompts. With fewer clusters, they are ranges from the smallest to the
    /// largest cluster mean. The baselines of normalized effects are not resampled. A percentile
    /// bootstrap of few clusters is still somewhat narrow. `None` for fewer than two clusters, and
    /// for a bootstrap with 0 resamples.
    ///
    /// # Panics
    /// If `clusters` has another number of prompts.
    #[must_use]
    pub fn intervals(&self, clusters: &Clusters, bootstrap: Bootstrap) -> Option<Intervals> {
        if !self.has_several(clusters) {
            return None;
        }
        let kind = IntervalKind::of(clusters, bootstrap)?;
        let [low, high] = match kind {
            IntervalKind::Range { .. } => self.range(clusters),
            IntervalKind::Bootstrap { .. } => self.resampled(clusters, bootstrap),
        };
        Some(Intervals { kind, low, high })
    }

    /// Returns the smallest and the largest cluster mean of each node.
    fn range(&self, clusters: &Clusters) -> [ArrayD<f32>; 2] {
        let ends = |values: &[f32], clusters: &Clusters| {
            let sums = sums(values.iter().copied(), clusters).into_iter().zip(clusters.sizes());
            let means = sums.map(|(sum, &size)| (sum / size as f64) as f32);
            means.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], mean| [low.min(mean), high.max(mean)])
        };
        self.by_node(clusters, |nodes, clusters| each(nodes, |node| ends(node, clusters)))
    }

    /// Returns the ends of the resampled means of each node. The weights of a resample are used and
    /// dropped: those of all resamples would take more memory than the effects.
    fn resampled(&self, clusters: &Clusters, bootstrap: Bootstrap) -> [ArrayD<f32>; 2] {
        let tail = (1.0 - bootstrap.level.clamp(0.0, 1.0)) / 2.0;
        let last = bootstrap.resamples - 1;
        let at = |share: f64| ((share * last as f64).round() as usize).min(last);
        self.by_node(clusters, |nodes, clusters| {
            let sums: Vec<Vec<f64>> = nodes.iter().map(|values| sums(values.iter().copied(), clusters)).collect();
            let mut means: Vec<Vec<f32>> = nodes.iter().map(|_| Vec::with_capacity(bootstrap.resamples)).collect();
            for_each_draw(clusters, bootstrap, |weights| {
                for (means, sums) in means.iter_mut().zip(&sums) {
                    means.push(sums.iter().zip(weights).map(|(sum, weight)| sum * weight).sum::<f64>() as f32);
                }
            });
            let ends = |(values, mut means): (&Vec<f32>, Vec<f32>)| {
                if values.iter().all(|v| *v == values[0]) {
                    return [values[0]; 2]; // Every resample has the same mean.
                }
                means.sort_by(f32::total_cmp);
                [means[at(tail)], means[at(1.0 - tail)]]
            };
            nodes.iter().zip(means).map(ends).collect()
        })
    }

    /// Returns whether there are enough clusters for a standard error.
    ///
    /// # Panics
    /// If `clusters` has another number of prompts.
    pub(crate) fn has_several(&self, clusters: &Clusters) -> bool {
        let prompts = self.values.shape()[0];
        assert_eq!(clusters.prompts(), prompts, "clusters of {} prompts for effects of {prompts}", clusters.prompts());
        clusters.len() > 1
    }

    /// Returns the effects of one node over the prompts that have its position, and the clusters of
    /// those prompts. `place` is its index along the axes of its kind.
    ///
    /// # Panics
    /// If there is no such node, or if `clusters` has another number of prompts.
    #[must_use]
    pub fn node(&self, place: &[usize], clusters: &Clusters) -> (Self, Clusters) {
        let prompts = self.prompts_at(self.position_axis().map(|axis| place[axis - 1]));
        let values = prompts.iter().map(|&prompt| self.values[[&[prompt], place].concat().as_slice()]).collect();
        let values = ArrayD::from_shape_vec(IxDyn(&[prompts.len(), 1]), values).expect("one number per prompt");
        let lengths = prompts.iter().filter_map(|&prompt| self.lengths.get(prompt).copied()).collect();
        let kind = NodeKind::all(self.kind.component);
        (Self::new(kind, values, lengths), clusters.restricted_to(&prompts))
    }

    /// Returns the prompts that have a position, or all prompts without a position.
    fn prompts_at(&self, position: Option<usize>) -> Vec<usize> {
        let has = |prompt: &usize| position.is_none_or(|p| self.lengths.get(*prompt).is_none_or(|length| *length > p));
        (0..self.values.shape()[0]).filter(has).collect()
    }

    /// Returns the results of `of` for each node, `[layer, ..]`. `of` gets the effects of some
    /// nodes over the prompts that have them, and the clusters of these prompts. NaN for fewer than
    /// two clusters.
    fn by_node<const N: usize>(
        &self,
        clusters: &Clusters,
        of: impl Fn(&[Vec<f32>], &Clusters) -> Vec<[f32; N]>,
    ) -> [ArrayD<f32>; N] {
        let axis = self.position_axis();
        let shape = IxDyn(&self.values.shape()[1..]);
        let mut found = [(); N].map(|()| ArrayD::from_elem(shape.clone(), f32::NAN));
        let positions = axis.map_or(1, |axis| self.values.shape()[axis]);
        let mut by_position: Vec<Vec<(IxDyn, ArrayView1<f32>)>> = vec![Vec::new(); positions];
        for (place, lane) in indices(shape).into_iter().zip(self.values.lanes(Dimension(0))) {
            by_position[axis.map_or(0, |axis| place[axis - 1])].push((place, lane));
        }
        for (position, here) in by_position.iter().enumerate() {
            let prompts = self.prompts_at(axis.map(|_| position));
            let clusters = clusters.restricted_to(&prompts);
            if clusters.len() < 2 {
                continue;
            }
            for nodes in here.chunks(nodes_at_once(prompts.len())) {
                let values: Vec<Vec<f32>> =
                    nodes.iter().map(|(_, lane)| prompts.iter().map(|&prompt| lane[prompt]).collect()).collect();
                for ((place, _), ends) in nodes.iter().zip(of(&values, &clusters)) {
                    found.iter_mut().zip(ends).for_each(|(found, end)| found[place] = end);
                }
            }
        }
        found
    }
}

/// Returns the results of `of` for each of some nodes.
fn each<const N: usize>(nodes: &[Vec<f32>], of: impl Fn(&[f32]) -> [f32; N]) -> Vec<[f32; N]> {
    nodes.iter().map(|values| of(values)).collect()
}

/// Most numbers that statistics of several nodes hold at once, on each thread.
const NUMBERS_AT_ONCE: usize = 1 << 19;

/// Returns the number of nodes whose statistics over `prompts` prompts are computed at once. It
/// falls as the number of prompts grows, so that the memory does not grow.
pub(crate) fn nodes_at_once(prompts: usize) -> usize {
    (NUMBERS_AT_ONCE / prompts.max(1)).clamp(1, 512)
}

/// Returns the sum of `values` over the prompts of each cluster.
pub(crate) fn sums(values: impl Iterator<Item = f32>, clusters: &Clusters) -> Vec<f64> {
    let mut sums = vec![0.0; clusters.len()];
    values.zip(clusters.of()).for_each(|(v, &cluster)| sums[cluster] += f64::from(v));
    sums
}

/// Calls `take` with the weight of each cluster's sum in the mean of each resample: the number of
/// times that the cluster is drawn, divided by the number of prompts in the resample.
fn for_each_draw(clusters: &Clusters, Bootstrap { resamples, seed, .. }: Bootstrap, mut take: impl FnMut(&[f64])) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let groups = clusters.len();
    let mut weights = vec![0.0; groups];
    for _ in 0..resamples {
        weights.fill(0.0);
        let mut prompts = 0;
        for _ in 0..groups {
            let cluster = ((u64::from(rng.next_u32()) * groups as u64) >> 32) as usize;
            weights[cluster] += 1.0;
            prompts += clusters.sizes()[cluster];
        }
        weights.iter_mut().for_each(|weight| *weight /= prompts as f64);
        take(&weights);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::kind::{By, Component, NodeKind};

    fn effects(values: &[f32]) -> Effects {
        let values = ArrayD::from_shape_vec(vec![values.len(), 1, 1], values.to_vec()).unwrap();
        Effects::new(NodeKind::all(Component::HeadZ), values, Vec::new())
    }

    fn only([low, high]: [ArrayD<f32>; 2]) -> [f32; 2] {
        [low[[0, 0]], high[[0, 0]]]
    }

    /// Effects of L3H7 in toy-gpt2 and L0H1 in toy-neox on the eight prompts of the demo,
    /// denoising. They were computed with transformers in float64, by hooks before the output
    /// projection of attention. Their statistics were computed from them with NumPy.
    const L3H7: [f32; 8] = [0.381_778, 0.444_982, 0.579_697, 0.591_2, 0.548_172, 0.509_548, 0.134_43, 0.141_077];
    const L0H1_NEOX: [f32; 8] =
        [0.489_356, 0.418_754, 0.529_427, 0.470_275, 0.563_602, 0.457_661, 0.155_406, 0.426_915];

    #[test]
    fn mirrored_pairs_count_as_one_cluster() {
        let mirrored = Clusters::by([0, 0, 1, 1, 2, 2, 3, 3]);
        let cases = [
            (L3H7, 0.065_545, 0.099_531, [0.137_754, 0.585_449], [0.099_608, 0.733_113]),
            (L0H1_NEOX, 0.044_026, 0.050_758, [0.291_161, 0.510_632], [0.277_388, 0.600_461]),
        ];
        for (values, apart, clustered, range, by_t) in cases {
            let effects = effects(&values);
            let error = |clusters: &Clusters| effects.standard_error(clusters).unwrap()[[0, 0]];
            assert!((error(&Clusters::each(8)) - apart).abs() < 2e-6, "{}", error(&Clusters::each(8)));
            assert!((error(&mirrored) - clustered).abs() < 2e-6, "{}", error(&mirrored));
            let found = effects.intervals(&mirrored, Bootstrap::default()).unwrap();
            assert_eq!(found.kind, IntervalKind::Range { clusters: 4 });
            assert_eq!(found.kind.to_string(), "range of 4 clusters");
            let close = |found: [f32; 2], ends: [f32; 2]| (0..2).all(|i| (found[i] - ends[i]).abs() < 2e-6);
            assert!(close(only([found.low, found.high]), range));
            let found = only(effects.t_interval(&mirrored, 0.95).unwrap());
            assert!(close(found, by_t), "{found:?}");
        }
    }

    #[test]
    fn standard_error_weights_clusters_by_size() {
        // By hand: mean 3, sums of deviations -3, 0, 3; sqrt(3 / 2 * 18) / 5.
        let error = effects(&[1.0, 2.0, 3.0, 4.0, 5.0]).standard_error(&Clusters::by([0, 0, 1, 2, 2])).unwrap()[[0, 0]];
        assert!((error - 1.039_230_5).abs() < 1e-6, "{error}");
        let apart = effects(&[1.0, 2.0, 3.0, 4.0]).standard_error(&Clusters::each(4)).unwrap()[[0, 0]];
        assert!((apart - 0.645_497_2).abs() < 1e-6, "{apart}");
    }

    #[test]
    fn standard_error_at_a_position_skips_shorter_prompts() {
        let kind = NodeKind { component: Component::ResidPre, by: By::Position };
        // Three prompts of 3, 3 and 2 tokens, one layer. The last value of the shortest prompt has
        // no meaning.
        let values = ArrayD::from_shape_vec(vec![3, 1, 3], vec![1.0, 2.0, 4.0, 2.0, 4.0, 8.0, 3.0, 6.0, 99.0]).unwrap();
        let effects = Effects::new(kind, values, vec![3, 3, 2]);
        let clusters = Clusters::each(3);
        let errors = effects.standard_error(&clusters).unwrap();
        // The standard deviations are 1, 2 and sqrt(8).
        for (position, expected) in [(0, (1.0_f32 / 3.0).sqrt()), (1, 2.0 / 3.0_f32.sqrt()), (2, 2.0)] {
            assert!((errors[[0, position]] - expected).abs() < 1e-6, "{errors}");
            let (node, clusters) = effects.node(&[0, position], &clusters);
            assert!((node.standard_error(&clusters).unwrap()[[0]] - expected).abs() < 1e-6);
        }
        let range = effects.intervals(&clusters, Bootstrap::default()).unwrap();
        assert_eq!([range.low[[0, 2]], range.high[[0, 2]]], [4.0, 8.0]);
        let alone = Effects { lengths: vec![3, 2, 2], ..effects };
        assert!(alone.standard_error(&clusters).unwrap()[[0, 2]].is_nan(), "one prompt has no error");
    }

    #[test]
    fn one_cluster_has_no_standard_error() {
        let (effects, one) = (effects(&[1.0, 2.0]), Clusters::by([0, 0]));
        assert_eq!(effects.standard_error(&one), None);
        assert_eq!(effects.intervals(&one, Bootstrap::default()), None);
        assert_eq!(effects.t_interval(&one, 0.95), None);
    }

    #[test]
    fn intervals_span_two_standard_errors_and_repeat_with_the_seed() {
        let values: Vec<f32> = (0..50).map(|i| (i * 37 % 50) as f32).collect();
        let twice: Vec<f32> = values.iter().chain(&values).copied().collect();
        let pairs = Clusters::by((0..100).map(|i| i % 50));
        for (effects, clusters) in [(effects(&values), Clusters::each(50)), (effects(&twice), pairs)] {
            let found = effects.intervals(&clusters, Bootstrap::default()).unwrap();
            assert_eq!(found.kind.to_string(), "95% interval");
            let [low, high] = [&found.low, &found.high].map(|end| end[[0, 0]]);
            let mean = effects.mean()[[0, 0]];
            let error = effects.standard_error(&clusters).unwrap()[[0, 0]];
            // The standard error of 0 to 49, once each: repeats add nothing.
            assert!((error - 2.061_553).abs() < 1e-4, "{error}");
            assert!((low - (mean - 1.96 * error)).abs() < 0.3 * error, "{low}");
            assert!((high - (mean + 1.96 * error)).abs() < 0.3 * error, "{high}");
            assert_eq!(Some(found), effects.intervals(&clusters, Bootstrap::default()));
            let with_seed = |seed| effects.intervals(&clusters, Bootstrap { seed, ..Bootstrap::default() }).unwrap();
            assert!((1..6).any(|seed| with_seed(seed).low[[0, 0]] != low), "the seed makes no difference");
        }
    }

    #[test]
    fn nodes_in_blocks_have_the_intervals_of_each_node_alone() {
        let (prompts, nodes) = (6000, 90);
        assert!(nodes_at_once(prompts) < nodes, "one block is no test");
        let value = |(prompt, _, node): (usize, usize, usize)| ((prompt * (node + 3)) % 101) as f32 - 50.0;
        let values = ndarray::Array3::from_shape_fn((prompts, 1, nodes), value).into_dyn();
        let effects = Effects::new(NodeKind::all(Component::HeadZ), values, Vec::new());
        let (clusters, few) = (Clusters::each(prompts), Bootstrap { resamples: 40, ..Bootstrap::default() });
        let all = effects.intervals(&clusters, few).unwrap();
        for node in [0, nodes_at_once(prompts), nodes - 1] {
            let (alone, clusters) = effects.node(&[0, node], &clusters);
            let alone = alone.intervals(&clusters, few).unwrap();
            assert_eq!([alone.low[[0]], alone.high[[0]]], [all.low[[0, node]], all.high[[0, node]]], "{node}");
        }
    }

    #[test]
    fn equal_effects_have_intervals_of_zero_width() {
        let found = effects(&[3.0; 6]).intervals(&Clusters::each(6), Bootstrap::default()).unwrap();
        assert_eq!(only([found.low, found.high]), [3.0, 3.0]);
        assert_eq!(effects(&[3.0; 6]).standard_error(&Clusters::each(6)).unwrap()[[0, 0]], 0.0);
    }

    #[test]
    #[should_panic(expected = "clusters of 3 prompts for effects of 2")]
    fn clusters_of_another_length_panic() {
        let _ = effects(&[1.0, 2.0]).standard_error(&Clusters::each(3));
    }
}
