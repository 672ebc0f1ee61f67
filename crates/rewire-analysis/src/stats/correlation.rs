//! Correlation and regression of two sets of numbers.

/// Returns Pearson's correlation of pairs of finite numbers. `None` for fewer than two pairs, and
/// if one side does not vary.
#[must_use]
pub fn pearson(pairs: impl IntoIterator<Item = (f32, f32)>) -> Option<f64> {
    let m = SumsOfSquares::new(pairs);
    (m.n >= 2 && m.xx > 0.0 && m.yy > 0.0).then(|| m.xy / (m.xx * m.yy).sqrt())
}

/// Returns Spearman's rank correlation: Pearson's correlation of the ranks, with ties at their mean
/// rank. `None` for fewer than two pairs, and if one side does not vary.
#[must_use]
pub fn spearman(pairs: impl IntoIterator<Item = (f32, f32)>) -> Option<f64> {
    let (x, y): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
    pearson(ranks(&x).into_iter().zip(ranks(&y)))
}

/// Returns the slope of the least-squares line of y over x. `None` for fewer than two pairs, and if
/// x does not vary.
#[must_use]
pub fn slope(pairs: impl IntoIterator<Item = (f32, f32)>) -> Option<f64> {
    regression(pairs).map(|[slope, _]| slope)
}

/// Returns the slope and intercept of the least-squares line of y over x. `None` for fewer than two
/// pairs, and if x does not vary.
#[must_use]
pub fn regression(pairs: impl IntoIterator<Item = (f32, f32)>) -> Option<[f64; 2]> {
    let m = SumsOfSquares::new(pairs);
    let slope = m.xy / m.xx;
    (m.n >= 2 && m.xx > 0.0).then_some([slope, m.mean_y - slope * m.mean_x])
}

/// Returns the share of the variance of x that y explains as an estimate of x:
/// `1 - sum (y - x)^2 / sum (x - mean x)^2`. It is 1 if both are equal, 0 if y is no better than
/// the mean of x, and below 0 if y is worse. `None` for fewer than two pairs, and if x does not
/// vary.
#[must_use]
pub fn r_squared(pairs: impl IntoIterator<Item = (f32, f32)>) -> Option<f64> {
    let pairs: Vec<(f32, f32)> = pairs.into_iter().collect();
    let error: f64 = pairs.iter().map(|&(x, y)| (f64::from(y) - f64::from(x)).powi(2)).sum();
    let m = SumsOfSquares::new(pairs);
    (m.n >= 2 && m.xx > 0.0).then(|| 1.0 - error / m.xx)
}

/// Sums of squares and products of deviations from the means.
struct SumsOfSquares {
    n: usize,
    mean_x: f64,
    mean_y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
}

impl SumsOfSquares {
    fn new(pairs: impl IntoIterator<Item = (f32, f32)>) -> Self {
        let pairs: Vec<(f64, f64)> = pairs.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).collect();
        let n = pairs.len() as f64;
        let mean_x = pairs.iter().map(|(x, _)| x).sum::<f64>() / n;
        let mean_y = pairs.iter().map(|(_, y)| y).sum::<f64>() / n;
        let sum = |f: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&(x, y)| f(x - mean_x, y - mean_y)).sum::<f64>();
        Self { n: pairs.len(), mean_x, mean_y, xx: sum(&|x, _| x * x), yy: sum(&|_, y| y * y), xy: sum(&|x, y| x * y) }
    }
}

/// Returns ranks from 1 up, ties at their mean rank.
fn ranks(values: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &i in tied {
            ranks[i] = below as f32 + (tied.len() as f32 + 1.0) / 2.0;
        }
        below += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_matches_known_numbers() {
        assert_eq!(pearson([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(1.0));
        assert_eq!(pearson([(0.0, 1.0), (1.0, -1.0)]), Some(-1.0));
        let some = pearson([(1.0, 2.0), (2.0, 1.0), (3.0, 4.0)]).unwrap();
        assert!((some - 0.654_653_670_707_977).abs() < 1e-12, "{some}");
        assert_eq!(pearson([(1.0, 2.0)]), None);
        assert_eq!(pearson([(1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn ranks_and_fits_match_known_numbers() {
        assert_eq!(ranks(&[3.0, -1.0, 3.0, 7.0]), [2.5, 1.0, 2.5, 4.0]);
        assert_eq!(spearman([(0.0, 1.0), (1.0, 30.0), (2.0, 31.0)]), Some(1.0));
        assert_eq!(slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(2.0));
        assert_eq!(regression([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some([2.0, 1.0]));
        assert_eq!(r_squared([(0.0, 0.0), (1.0, 1.0)]), Some(1.0));
        assert_eq!(r_squared([(0.0, 0.5), (1.0, 0.5)]), Some(0.0));
        assert_eq!(r_squared([(1.0, 1.0), (1.0, 1.0)]), None);
    }
}
