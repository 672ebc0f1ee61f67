//! Comparison of the scores that two methods give to the same nodes: correlation, shared top nodes,
//! and differences.

use crate::stats::correlation::{pearson, regression};

/// The comparison of the scores that two methods give to the same nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Pearson's correlation; `None` if the scores of one method do not vary.
    pub pearson: Option<f64>,
    /// Slope and intercept of the least-squares line of the second scores over the first; `None` if
    /// the first scores do not vary.
    pub regression: Option<[f64; 2]>,
    /// Number of largest scores, by absolute value, that [`jaccard`](Self::jaccard) compares.
    pub top_k: usize,
    /// Number of nodes in the `top_k` of both methods, as a share of the nodes in the `top_k` of
    /// either method.
    pub jaccard: f64,
    /// Differences per node, with each method scaled by its largest absolute score.
    pub difference: MeanDifference,
}

/// A mean-difference (Bland-Altman) view: for each node, the mean of both scores and the second
/// score less the first. Each method is scaled by its largest absolute score.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanDifference {
    /// Mean of both scores, per node.
    pub means: Vec<f64>,
    /// Second score less first score, per node.
    pub differences: Vec<f64>,
    /// Mean of the differences.
    pub bias: f64,
    /// Standard deviation of the differences (divisor: the number of nodes).
    pub sd: f64,
}

impl Comparison {
    /// Compares the scores that two methods give to the same nodes. `top_k` is limited to the
    /// number of nodes.
    #[must_use]
    pub fn new(first: &[f32], second: &[f32], top_k: usize) -> Self {
        let pairs = || first.iter().copied().zip(second.iter().copied());
        let top_k = top_k.min(first.len()).min(second.len());
        let [of_first, of_second] = [first, second].map(|scores| top_by_size(scores, top_k));
        let shared = of_first.iter().filter(|node| of_second.contains(node)).count();
        Self {
            pearson: pearson(pairs()),
            regression: regression(pairs()),
            top_k,
            jaccard: shared as f64 / (2 * top_k - shared).max(1) as f64,
            difference: MeanDifference::new(first, second),
        }
    }
}

/// Returns the `k` nodes of largest absolute score, the largest first. Nodes of equal size keep
/// their order.
#[must_use]
pub fn top_by_size(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].abs().total_cmp(&scores[a].abs()));
    order.truncate(k);
    order
}

impl MeanDifference {
    fn new(first: &[f32], second: &[f32]) -> Self {
        let [first, second] = [first, second].map(scaled);
        let means = first.iter().zip(&second).map(|(a, b)| (a + b) / 2.0).collect();
        let differences: Vec<f64> = first.iter().zip(&second).map(|(a, b)| b - a).collect();
        let n = differences.len().max(1) as f64;
        let bias = differences.iter().sum::<f64>() / n;
        let sd = (differences.iter().map(|d| (d - bias).powi(2)).sum::<f64>() / n).sqrt();
        Self { means, differences, bias, sd }
    }

    /// Returns the limits of agreement: bias less and plus 1.96 standard deviations.
    #[must_use]
    pub fn limits(&self) -> [f64; 2] {
        [self.bias - 1.96 * self.sd, self.bias + 1.96 * self.sd]
    }

    /// Returns the nodes outside the limits of agreement.
    #[must_use]
    pub fn outliers(&self) -> Vec<usize> {
        let [low, high] = self.limits();
        (0..self.differences.len()).filter(|&i| !(low..=high).contains(&self.differences[i])).collect()
    }
}

/// Returns the scores as shares of the largest absolute score. Scores that are all 0 stay 0.
fn scaled(scores: &[f32]) -> Vec<f64> {
    let largest = scores.iter().fold(0.0_f64, |m, s| m.max(f64::from(*s).abs()));
    let unit = if largest > 0.0 { largest } else { 1.0 };
    scores.iter().map(|&s| f64::from(s) / unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_matches_known_scores() {
        let found = Comparison::new(&[1.0, -4.0, 0.5, 0.0], &[2.0, -8.0, 0.0, 3.0], 2);
        // The largest scores are at nodes 1 and 0 for the first method, and at 1 and 3 for the
        // second.
        assert_eq!((found.top_k, found.jaccard), (2, 1.0 / 3.0));
        assert_eq!(found.difference.differences, [0.0, 0.0, -0.125, 0.375]);
        assert_eq!(found.difference.means, [0.25, -1.0, 0.0625, 0.1875]);
        assert_eq!(found.difference.bias, 0.0625);
        let sd = ((2.0 * 0.0625_f64.powi(2) + 0.1875_f64.powi(2) + 0.3125_f64.powi(2)) / 4.0).sqrt();
        assert!((found.difference.sd - sd).abs() < 1e-12);
        assert_eq!(Comparison::new(&[1.0, 2.0], &[2.0, 4.0], 30).jaccard, 1.0);
        assert_eq!(Comparison::new(&[1.0, 2.0], &[2.0, 4.0], 30).regression, Some([2.0, 0.0]));
    }

    #[test]
    fn outliers_lie_outside_the_limits_of_agreement() {
        let mut second = vec![0.0_f32; 100];
        second[7] = 1.0;
        let found = Comparison::new(&[0.0; 100], &second, 1).difference;
        assert_eq!(found.outliers(), [7]);
        assert_eq!(Comparison::new(&[0.0; 3], &[0.0; 3], 1).difference.outliers(), [] as [usize; 0]);
    }
}
