//! Tests which of many nodes have an effect, with the family-wise error controlled.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayD, ArrayView1, Axis as Dimension, IxDyn, Zip, indices};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use rewire_tasks::Clusters;

use crate::effects::Effects;
use crate::stats::bootstrap::{nodes_at_once, sums};

/// Settings of the sign-flip test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignFlips {
    /// Upper bound on the chance that any node without an effect is marked.
    pub level: f64,
    /// Largest number of flips. If there are no more than this, all flips are made. Otherwise this
    /// many are drawn, the first of which flips nothing.
    pub most: usize,
    /// Seed for the drawn flips.
    pub seed: u64,
}

impl Default for SignFlips {
    fn default() -> Self {
        Self { level: 0.05, most: 2048, seed: 0 }
    }
}

/// The result of a test of all nodes of one kind together.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The allowed family-wise error; see [`SignFlips::level`].
    pub level: f64,
    /// Number of compared nodes: those whose effect is not 0 on every prompt.
    pub compared: usize,
    /// Number of clusters of prompts.
    pub clusters: usize,
    /// Number of flips.
    pub flips: usize,
    /// Whether all possible flips were made.
    pub all_flips: bool,
    /// The absolute mean effect, in its standard errors, above which a node is beyond chance.
    /// `None` if there are too few clusters for any node to be beyond chance.
    pub threshold: Option<f64>,
    /// For each node, the share of flips in which the largest statistic of all nodes is at least
    /// that of this node. 1 for nodes that were not compared. `[layer, ..]`.
    pub p_values: ArrayD<f32>,
}

impl Effects {
    /// Tests every node's mean effect against 0, all nodes of the kind together. The chance of
    /// marking *any* node without an effect is at most [`SignFlips::level`] (Westfall and Young
    /// 1993, single-step max T; by sign flips: Winkler et al. 2014).
    ///
    /// The statistic of a node is its absolute mean in [standard errors](Self::standard_error).
    /// Each flip reverses the sign of the effects in some clusters of prompts, the same for all
    /// nodes, and takes the largest statistic of all nodes. Without effects, all flips are equally
    /// likely if clusters are independent of each other and their effects are as likely above 0 as
    /// below. Nodes may depend on each other in any way. A node's p-value is the share of flips
    /// whose largest statistic is at least the node's own. Flipping no cluster and flipping every
    /// cluster give the same statistics. `G` clusters therefore have `2^(G-1)` flips, and no
    /// p-value is below one over that number: with fewer than six clusters no p-value can be below
    /// 0.05.
    ///
    /// `None` for fewer than two clusters, and if no node has an effect.
    ///
    /// # Panics
    /// If `clusters` has another number of prompts.
    #[must_use]
    pub fn family(&self, clusters: &Clusters, flips: SignFlips) -> Option<Family> {
        let nodes = self.compared();
        if !self.has_several(clusters) || nodes.is_empty() {
            return None;
        }
        let signs = Signs::new(clusters, flips);
        let count = signs.count;
        let lanes: Vec<_> = self.values.lanes(Dimension(0)).into_iter().collect();
        let found: Vec<(Vec<f64>, Vec<f64>)> = nodes
            .par_chunks(nodes_at_once(clusters.len()))
            .map(|nodes| {
                let mut of_clusters = Array2::zeros((clusters.len(), nodes.len()));
                for (mut column, &node) in of_clusters.columns_mut().into_iter().zip(nodes) {
                    column.assign(&Array1::from(sums(lanes[node].iter().copied(), clusters)));
                }
                signs.largest_and_own(&of_clusters)
            })
            .collect();
        let mut largest = vec![0.0_f64; count];
        for (of_chunk, _) in &found {
            largest.iter_mut().zip(of_chunk).for_each(|(m, v)| *m = m.max(*v));
        }
        largest.sort_by(|a, b| b.total_cmp(a));
        let mut p_values = ArrayD::ones(&self.values.shape()[1..]);
        let all = p_values.as_slice_mut().expect("the array is contiguous");
        for (&node, size) in nodes.iter().zip(found.iter().flat_map(|(_, own)| own)) {
            // The tolerance is for sums in another order, which may differ in their last digits.
            let as_far = largest.partition_point(|other| *other >= size * (1.0 - 1e-9));
            all[node] = (as_far as f64 / count as f64) as f32;
        }
        let allowed = (flips.level * count as f64).floor() as usize;
        let threshold = (allowed > 0).then(|| signs.in_errors(largest[allowed.min(count - 1)]));
        Some(Family {
            level: flips.level,
            compared: nodes.len(),
            clusters: clusters.len(),
            flips: count,
            all_flips: signs.all,
            threshold,
            p_values,
        })
    }

    /// Returns the nodes that have an effect on some prompt, as indices in the order of the axes.
    /// Nodes with an unknown effect (NaN) and nodes at positions that some prompt does not have are
    /// left out.
    fn compared(&self) -> Vec<usize> {
        let shortest = self.lengths.iter().copied().min().unwrap_or(usize::MAX);
        let axis = self.position_axis();
        let lanes = indices(&self.values.shape()[1..]).into_iter().zip(self.values.lanes(Dimension(0))).enumerate();
        let is_compared = |(place, values): (IxDyn, ArrayView1<f32>)| {
            axis.is_none_or(|axis| place[axis - 1] < shortest)
                && values.iter().any(|v| *v != 0.0)
                && values.iter().all(|v| v.is_finite())
        };
        lanes.filter_map(|(node, lane)| is_compared(lane).then_some(node)).collect()
    }
}

impl Family {
    /// Returns whether a node, given by its index along the axes of its kind, is beyond chance.
    #[must_use]
    pub fn is_beyond(&self, place: &[usize]) -> bool {
        self.p_values[place] <= self.level as f32
    }

    /// Returns the smallest p-value that this number of flips can give.
    #[must_use]
    pub fn smallest_p(&self) -> f64 {
        1.0 / self.flips as f64
    }

    /// Returns the number of nodes beyond chance.
    #[must_use]
    pub fn beyond(&self) -> usize {
        self.p_values.iter().filter(|p| **p <= self.level as f32).count()
    }
}

/// Most signs in memory at once, on each thread.
const SIGNS_AT_ONCE: usize = 1 << 19;

/// The signs of clusters in each flip. They are made some flips at a time, because those of all
/// flips would take more memory than the effects. The first flip flips nothing.
struct Signs {
    /// Number of flips.
    count: usize,
    /// Whether these are all possible flips.
    all: bool,
    seed: u64,
    /// Number of prompts in each cluster.
    prompts: Array1<f64>,
}

impl Signs {
    fn new(clusters: &Clusters, SignFlips { most, seed, .. }: SignFlips) -> Self {
        let prompts = clusters.sizes().iter().map(|&size| size as f64).collect();
        let exponent = u32::try_from(clusters.len() - 1).unwrap_or(u32::MAX);
        let all = 1_usize.checked_shl(exponent).filter(|count| *count > 0 && *count <= most);
        Self { count: all.unwrap_or(most.max(1)), all: all.is_some(), seed, prompts }
    }

    /// Returns the largest size of all nodes under each flip, and the size of each node without a
    /// flip, from sums over clusters, `[cluster, node]`.
    fn largest_and_own(&self, of_clusters: &Array2<f64>) -> (Vec<f64>, Vec<f64>) {
        let at_once = (SIGNS_AT_ONCE / self.prompts.len()).max(1);
        let (mut largest, mut own) = (Vec::with_capacity(self.count), Vec::new());
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        for first in (0..self.count).step_by(at_once) {
            let signs = self.some(first..self.count.min(first + at_once), &mut rng);
            let sizes = self.sizes(&signs, of_clusters);
            if first == 0 {
                own = sizes.row(0).to_vec();
            }
            largest.extend(sizes.rows().into_iter().map(|row| row.fold(0.0, |m: f64, &v| m.max(v))));
        }
        (largest, own)
    }

    /// Returns the signs of some flips, `[flip, cluster]`. The flips before them must have been
    /// drawn from `rng`.
    fn some(&self, flips: Range<usize>, rng: &mut ChaCha8Rng) -> Array2<f64> {
        let mut signs = Array2::ones((flips.len(), self.prompts.len()));
        for (flip, mut row) in flips.zip(signs.rows_mut()) {
            for (cluster, sign) in row.iter_mut().enumerate() {
                let is_flipped = match self.all {
                    // The first cluster is never flipped, because the other half of the flips gives
                    // the same statistics.
                    true => ((flip << 1) >> cluster) & 1 == 1,
                    false => flip > 0 && rng.next_u32() & 1 == 1,
                };
                *sign = if is_flipped { -1.0 } else { 1.0 };
            }
        }
        signs
    }

    /// Returns the size of each node's mean under each flip, `[flip, node]`, from sums over
    /// clusters, `[cluster, node]`. The size is the squared mean, divided by the squared deviations
    /// of the cluster sums plus the squared total over the number of clusters. It rises with the
    /// mean in standard errors, and stays finite if the standard error is 0.
    fn sizes(&self, signs: &Array2<f64>, of_clusters: &Array2<f64>) -> Array2<f64> {
        let (n, groups) = (self.prompts.sum(), self.prompts.len() as f64);
        let squares = of_clusters.mapv(|v| v * v).sum_axis(Dimension(0));
        let prompts_squared = self.prompts.mapv(|p| p * p).sum();
        let mut totals = signs.dot(of_clusters);
        // Clusters of equal size, the usual case, need no second matmul.
        let first = self.prompts[0];
        let crossed = match self.prompts.iter().all(|prompts| *prompts == first) {
            true => &totals * first,
            false => signs.dot(&(of_clusters * &self.prompts.clone().insert_axis(Dimension(1)))),
        };
        let squares = squares.broadcast(totals.dim()).expect("one row of squares");
        Zip::from(&mut totals).and(&crossed).and(squares).for_each(|total, crossed, squares| {
            let mean = *total / n;
            // The squared sums of deviations from the mean, over clusters.
            let deviations = squares - 2.0 * mean * crossed + mean * mean * prompts_squared;
            *total = mean * mean / (deviations.max(0.0) + *total * *total / groups);
        });
        totals
    }

    /// Converts a size to standard errors.
    fn in_errors(&self, size: f64) -> f64 {
        let (n, groups) = (self.prompts.sum(), self.prompts.len() as f64);
        let square = size / (1.0 - n * n / groups * size).max(0.0);
        ((groups - 1.0) / groups * square).sqrt() * n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::kind::{Component, NodeKind};

    /// Returns effects of nodes from `[prompt][node]`.
    fn effects(values: &[Vec<f32>]) -> Effects {
        let (prompts, nodes) = (values.len(), values[0].len());
        let values = ArrayD::from_shape_vec(vec![prompts, 1, nodes], values.concat()).unwrap();
        Effects::new(NodeKind::all(Component::HeadZ), values, Vec::new())
    }

    /// Draws a number from -1 to 1.
    fn noise(rng: &mut ChaCha8Rng) -> f32 {
        (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
    }

    #[test]
    fn p_values_match_all_sign_flips() {
        // Computed with NumPy from all 32 flips of six clusters, with one or two prompts each.
        let values: [[f32; 3]; 8] = [
            [0.9, 0.1, -0.3],
            [1.1, -0.2, 0.0],
            [0.8, 0.3, 0.0],
            [1.2, -0.1, 0.0],
            [0.7, 0.2, 0.1],
            [1.0, 0.15, 0.2],
            [0.95, -0.3, 0.1],
            [1.05, 0.25, 0.3],
        ];
        let clusters = Clusters::by([0, 1, 1, 2, 3, 4, 5, 5]);
        let family = effects(&values.map(|row| row.to_vec())).family(&clusters, SignFlips::default()).unwrap();
        assert_eq!((family.compared, family.clusters, family.flips, family.all_flips), (3, 6, 32, true));
        assert_eq!(family.p_values.as_slice().unwrap(), [0.031_25, 0.593_75, 0.843_75]);
        assert!((family.threshold.unwrap() - 3.482_710).abs() < 1e-4, "{:?}", family.threshold);
        assert_eq!((family.beyond(), family.is_beyond(&[0, 0]), family.is_beyond(&[0, 2])), (1, true, false));
    }

    /// Returns the share of `samples` in which any of 40 nodes is marked, and the share in which
    /// node 0 is marked. Node 0 has a true effect of `shift`. Half of the variance is common to all
    /// nodes. Each of `prompts` prompts is repeated `times` times.
    fn marked(samples: u64, prompts: usize, times: usize, shift: f32, clusters: &Clusters) -> [f64; 2] {
        let mut marked = [0, 0];
        for seed in 0..samples {
            let mut rng = ChaCha8Rng::seed_from_u64(1000 + seed);
            let mut row = |_| {
                let common = noise(&mut rng);
                let own = |node| noise(&mut rng) + common + if node == 0 { shift } else { 0.0 };
                (0..40).map(own).collect::<Vec<f32>>()
            };
            let rows: Vec<Vec<f32>> = (0..prompts).map(&mut row).collect();
            let rows: Vec<Vec<f32>> = std::iter::repeat_n(rows, times).flatten().collect();
            let flips = SignFlips { most: 256, seed, ..SignFlips::default() };
            let family = effects(&rows).family(clusters, flips).unwrap();
            marked[0] += usize::from(family.beyond() > 0);
            marked[1] += usize::from(family.is_beyond(&[0, 0]));
        }
        marked.map(|n| n as f64 / samples as f64)
    }

    /// 0.05 plus three standard errors of a share of 1,000 samples.
    const ABOUT_5_PERCENT: f64 = 0.05 + 3.0 * 0.0069;

    #[test]
    fn null_effects_are_marked_in_5_percent_of_samples() {
        // Nine prompts have 256 flips, and all are made. Thirty prompts have more, and 256 are
        // drawn.
        for prompts in [9, 30] {
            let [any, _] = marked(1000, prompts, 1, 0.0, &Clusters::each(prompts));
            assert!(any <= ABOUT_5_PERCENT, "{prompts}: {any}");
            assert!(any >= 0.05 - 3.0 * 0.0069, "{prompts}: {any}: the test never marks anything");
        }
    }

    #[test]
    fn a_node_with_an_effect_is_marked() {
        // The effect is 1.5 standard deviations of its noise.
        let [_, found] = marked(200, 20, 1, 1.2, &Clusters::each(20));
        assert!(found > 0.95, "{found}");
    }

    #[test]
    fn repeated_prompts_must_share_a_cluster() {
        let repeats = Clusters::by((0..18).map(|prompt| prompt % 9));
        let [any, _] = marked(1000, 9, 2, 0.0, &repeats);
        assert!(any <= ABOUT_5_PERCENT, "{any}");
        let [any, _] = marked(1000, 9, 2, 0.0, &Clusters::each(18));
        assert!(any > 0.15, "repeated prompts in clusters of their own must mark too much: {any}");
    }

    #[test]
    fn fewer_than_six_clusters_have_no_threshold() {
        for (clusters, has_one) in [(2, false), (4, false), (5, false), (6, true)] {
            // The second node is above 0 as often as below.
            let other = |g: usize| 0.1 * (g + 1) as f32 * if g.is_multiple_of(2) { 1.0 } else { -1.0 };
            let rows: Vec<Vec<f32>> = (0..clusters).map(|g| vec![1.0, other(g)]).collect();
            let family = effects(&rows).family(&Clusters::each(clusters), SignFlips::default()).unwrap();
            assert_eq!(family.threshold.is_some(), has_one, "{clusters}");
            assert_eq!(family.beyond(), usize::from(has_one), "{clusters}");
            assert_eq!(family.smallest_p(), 0.5_f64.powi(clusters as i32 - 1));
        }
    }

    #[test]
    fn flips_in_blocks_give_the_sizes_of_all_flips_at_once() {
        let (clusters, nodes) = (1500, 7);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let of_clusters = Array2::from_shape_fn((clusters, nodes), |_| f64::from(noise(&mut rng)) + 0.05);
        for clusters in [Clusters::each(clusters), Clusters::by((0..clusters + 40).map(|prompt| prompt % clusters))] {
            let signs = Signs::new(&clusters, SignFlips::default());
            assert!(SIGNS_AT_ONCE < signs.count * clusters.len(), "one block is no test");
            let (largest, own) = signs.largest_and_own(&of_clusters);
            let all = signs.some(0..signs.count, &mut ChaCha8Rng::seed_from_u64(0));
            let sizes = signs.sizes(&all, &of_clusters);
            assert_eq!(own, sizes.row(0).to_vec());
            let expected: Vec<f64> = sizes.rows().into_iter().map(|row| row.fold(0.0, |m: f64, &v| m.max(v))).collect();
            assert_eq!(largest, expected);
        }
    }

    #[test]
    fn nodes_with_effects_of_exactly_0_are_not_compared() {
        let rows: Vec<Vec<f32>> = (0..7).map(|g| vec![0.0, 1.0 + 0.01 * g as f32, f32::NAN]).collect();
        let family = effects(&rows).family(&Clusters::each(7), SignFlips::default()).unwrap();
        assert_eq!(family.compared, 1);
        assert_eq!(family.p_values.as_slice().unwrap(), [1.0, 1.0 / 64.0, 1.0]);
        assert_eq!(effects(&[vec![0.0], vec![0.0]]).family(&Clusters::each(2), SignFlips::default()), None);
    }
}
