//! Which of many nodes have an effect, with the error of all of them together controlled.

use ndarray::{Array1, Array2, ArrayD, ArrayView1, Axis as Dimension, IxDyn, Zip, indices};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use rewire_tasks::Clusters;

use crate::effects::Effects;
use crate::stats::bootstrap::sums;

/// How signs are flipped, and what error is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignFlips {
    /// Chance, at most, that any node without an effect is marked.
    pub level: f64,
    /// Largest number of flips. If there are no more than this, all are made; otherwise this many
    /// are drawn, the first of which flips nothing.
    pub most: usize,
    /// Seed of the flips that are drawn.
    pub seed: u64,
}

impl Default for SignFlips {
    fn default() -> Self {
        Self { level: 0.05, most: 2048, seed: 0 }
    }
}

/// The nodes of one kind, tested together.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The error that is allowed; see [`SignFlips::level`].
    pub level: f64,
    /// How many nodes were compared: those whose effect is not 0 for every prompt.
    pub compared: usize,
    /// How many clusters of prompts there are.
    pub clusters: usize,
    /// How many flips were made.
    pub flips: usize,
    /// Whether these are all that there are.
    pub all_flips: bool,
    /// The size of a mean effect in its standard errors above which a node is beyond chance; `None`
    /// if there are too few clusters for any node to be.
    pub threshold: Option<f64>,
    /// For each node, the share of flips in which any node goes as far as this one does; 1 for
    /// nodes that were not compared. `[layer, ..]`.
    pub p_values: ArrayD<f32>,
}

impl Effects {
    /// Tests every node's mean effect against 0, all nodes of the kind together, so that the chance
    /// of marking *any* node without an effect is at most [`SignFlips::level`] (Westfall and Young
    /// 1993, single-step max T; by sign flips: Winkler et al. 2014).
    ///
    /// Each flip turns round the effects of some clusters of prompts, for all nodes alike, and
    /// takes the largest of all nodes' sizes: the mean in [standard errors](Self::standard_error).
    /// Without effects one flip is as likely as another, if clusters are independent of each other
    /// and their effects as likely above 0 as below; how nodes go together does not matter. A
    /// node's p-value is the share of flips whose largest size is at least the node's own. Flipping
    /// nothing and flipping everything is the same, so that `G` clusters have `2^(G-1)` flips and
    /// no p-value is below one over that: with fewer than six clusters none can be below 0.05.
    ///
    /// `None` for fewer than two clusters, or if no node has an effect.
    ///
    /// # Panics
    /// As [`standard_error`](Self::standard_error).
    #[must_use]
    pub fn family(&self, clusters: &Clusters, flips: SignFlips) -> Option<Family> {
        let nodes = self.compared();
        if !self.has_several(clusters) || nodes.is_empty() {
            return None;
        }
        let signs = Signs::new(clusters, flips);
        let count = signs.signs.nrows();
        let lanes: Vec<_> = self.values.lanes(Dimension(0)).into_iter().collect();
        let found: Vec<(Array1<f64>, Vec<f64>)> = nodes
            .par_chunks(NODES_AT_ONCE)
            .map(|nodes| {
                let mut of_clusters = Array2::zeros((clusters.len(), nodes.len()));
                for (mut column, &node) in of_clusters.columns_mut().into_iter().zip(nodes) {
                    column.assign(&Array1::from(sums(lanes[node].iter().copied(), clusters)));
                }
                let sizes = signs.sizes(&of_clusters);
                (sizes.map_axis(Dimension(1), |row| row.fold(0.0, |m: f64, &v| m.max(v))), sizes.row(0).to_vec())
            })
            .collect();
        let mut largest = vec![0.0_f64; count];
        for (of_chunk, _) in &found {
            largest.iter_mut().zip(of_chunk).for_each(|(m, v)| *m = m.max(*v));
        }
        largest.sort_by(|a, b| b.total_cmp(a));
        let mut p_values = ArrayD::ones(&self.values.shape()[1..]);
        let all = p_values.as_slice_mut().expect("made in one piece");
        for (&node, size) in nodes.iter().zip(found.iter().flat_map(|(_, own)| own)) {
            // Sums in another order may differ in their last digits.
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

    /// The nodes that have an effect on some prompt, by their place in the order of the axes.
    /// Effects that are not known (NaN) are not compared, nor nodes at positions that some prompt
    /// does not have.
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
    /// Whether a node, by its index along the axes of its kind, is beyond chance.
    #[must_use]
    pub fn is_beyond(&self, place: &[usize]) -> bool {
        self.p_values[place] <= self.level as f32
    }

    /// The smallest p-value that so many flips can give.
    #[must_use]
    pub fn smallest_p(&self) -> f64 {
        1.0 / self.flips as f64
    }

    /// How many nodes are beyond chance.
    #[must_use]
    pub fn beyond(&self) -> usize {
        self.p_values.iter().filter(|p| **p <= self.level as f32).count()
    }
}

/// Nodes whose sizes under all flips are held at once, on each thread.
const NODES_AT_ONCE: usize = 512;

/// Signs of clusters.
struct Signs {
    /// `[flip, cluster]`; the first flips nothing.
    signs: Array2<f64>,
    all: bool,
    /// How many prompts each cluster has.
    prompts: Array1<f64>,
}

impl Signs {
    fn new(clusters: &Clusters, SignFlips { most, seed, .. }: SignFlips) -> Self {
        let groups = clusters.len();
        let prompts = clusters.sizes().iter().map(|&size| size as f64).collect();
        let exponent = u32::try_from(groups - 1).unwrap_or(u32::MAX);
        if let Some(count) = 1_usize.checked_shl(exponent).filter(|count| *count > 0 && *count <= most) {
            // The first cluster is never flipped: the other half of the flips gives the same.
            let sign = |(flip, cluster): (usize, usize)| if ((flip << 1) >> cluster) & 1 == 1 { -1.0 } else { 1.0 };
            return Self { signs: Array2::from_shape_fn((count, groups), sign), all: true, prompts };
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut signs = Array2::ones((most.max(1), groups));
        for mut flip in signs.rows_mut().into_iter().skip(1) {
            flip.mapv_inplace(|_| if rng.next_u32() & 1 == 1 { -1.0 } else { 1.0 });
        }
        Self { signs, all: false, prompts }
    }

    /// The size of each node's mean under each flip, `[flip, node]`, from sums over clusters,
    /// `[cluster, node]`. It is the squared mean, over the squared deviations of the cluster sums
    /// plus the squared total over the number of clusters. It rises with the mean in standard
    /// errors, and stays finite if the standard error is 0.
    fn sizes(&self, of_clusters: &Array2<f64>) -> Array2<f64> {
        let (n, groups) = (self.prompts.sum(), self.prompts.len() as f64);
        let squares = of_clusters.mapv(|v| v * v).sum_axis(Dimension(0));
        let prompts_squared = self.prompts.mapv(|p| p * p).sum();
        let mut totals = self.signs.dot(of_clusters);
        // Clusters of one size, the usual case, need no second matmul.
        let first = self.prompts[0];
        let crossed = match self.prompts.iter().all(|prompts| *prompts == first) {
            true => &totals * first,
            false => self.signs.dot(&(of_clusters * &self.prompts.clone().insert_axis(Dimension(1)))),
        };
        let squares = squares.broadcast(totals.dim()).expect("a row of them");
        Zip::from(&mut totals).and(&crossed).and(squares).for_each(|total, crossed, squares| {
            let mean = *total / n;
            // The squared sums of deviations from the mean, over clusters.
            let deviations = squares - 2.0 * mean * crossed + mean * mean * prompts_squared;
            *total = mean * mean / (deviations.max(0.0) + *total * *total / groups);
        });
        totals
    }

    /// A size in standard errors.
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

    /// Effects of nodes, `[prompt][node]`.
    fn effects(values: &[Vec<f32>]) -> Effects {
        let (prompts, nodes) = (values.len(), values[0].len());
        let values = ArrayD::from_shape_vec(vec![prompts, 1, nodes], values.concat()).unwrap();
        Effects { kind: NodeKind::all(Component::HeadZ), values, lengths: Vec::new() }
    }

    /// Numbers from -1 to 1.
    fn noise(rng: &mut ChaCha8Rng) -> f32 {
        (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
    }

    #[test]
    fn p_values_of_known_numbers() {
        // Computed with NumPy from all 32 flips of six clusters, of one or two prompts each.
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

    /// How often any of 40 nodes is marked in many samples of `prompts` prompts, node 0 having a
    /// true effect of `shift`; and how often node 0 is. Nodes go together by half; each prompt is
    /// there `times` times, as its repeats.
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

    /// 0.05 and three standard errors of the share of 1,000 samples.
    const ABOUT_5_PERCENT: f64 = 0.05 + 3.0 * 0.0069;

    #[test]
    fn without_effects_some_node_is_marked_in_a_twentieth_of_samples() {
        // Nine prompts have 256 flips, all of which are made; of 30 prompts' flips 256 are drawn.
        for prompts in [9, 30] {
            let [any, _] = marked(1000, prompts, 1, 0.0, &Clusters::each(prompts));
            assert!(any <= ABOUT_5_PERCENT, "{prompts}: {any}");
            assert!(any >= 0.05 - 3.0 * 0.0069, "{prompts}: {any}: the test never marks anything");
        }
    }

    #[test]
    fn a_node_with_an_effect_is_found() {
        // The effect is 1.5 standard deviations of its noise.
        let [_, found] = marked(200, 20, 1, 1.2, &Clusters::each(20));
        assert!(found > 0.95, "{found}");
    }

    #[test]
    fn repeats_count_once_or_too_much_is_marked() {
        let repeats = Clusters::by((0..18).map(|prompt| prompt % 9));
        let [any, _] = marked(1000, 9, 2, 0.0, &repeats);
        assert!(any <= ABOUT_5_PERCENT, "{any}");
        let [any, _] = marked(1000, 9, 2, 0.0, &Clusters::each(18));
        assert!(any > 0.15, "prompts that are repeated were taken to be independent, and yet: {any}");
    }

    #[test]
    fn fewer_than_six_clusters_have_no_threshold() {
        for (clusters, has_one) in [(2, false), (4, false), (5, false), (6, true)] {
            // The second node is as often above 0 as below.
            let other = |g: usize| 0.1 * (g + 1) as f32 * if g.is_multiple_of(2) { 1.0 } else { -1.0 };
            let rows: Vec<Vec<f32>> = (0..clusters).map(|g| vec![1.0, other(g)]).collect();
            let family = effects(&rows).family(&Clusters::each(clusters), SignFlips::default()).unwrap();
            assert_eq!(family.threshold.is_some(), has_one, "{clusters}");
            assert_eq!(family.beyond(), usize::from(has_one), "{clusters}");
            assert_eq!(family.smallest_p(), 0.5_f64.powi(clusters as i32 - 1));
        }
    }

    #[test]
    fn nodes_without_an_effect_are_not_compared() {
        let rows: Vec<Vec<f32>> = (0..7).map(|g| vec![0.0, 1.0 + 0.01 * g as f32, f32::NAN]).collect();
        let family = effects(&rows).family(&Clusters::each(7), SignFlips::default()).unwrap();
        assert_eq!(family.compared, 1);
        assert_eq!(family.p_values.as_slice().unwrap(), [1.0, 1.0 / 64.0, 1.0]);
        assert_eq!(effects(&[vec![0.0], vec![0.0]]).family(&Clusters::each(2), SignFlips::default()), None);
    }
}
