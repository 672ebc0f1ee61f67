//! How well one set of numbers follows another.

/// Pearson's correlation of pairs of finite numbers; `None` for fewer than two pairs, or where one side does not vary.
#[must_use]
pub fn pearson(pairs: impl IntoIterator<Item = (f32, f32)>) -> Option<f64> {
    let pairs: Vec<(f64, f64)> = pairs.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).collect();
    let n = pairs.len() as f64;
    let mean_x = pairs.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = pairs.iter().map(|(_, y)| y).sum::<f64>() / n;
    let sum = |f: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&(x, y)| f(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, yy, xy) = (sum(&|x, _| x * x), sum(&|_, y| y * y), sum(&|x, y| x * y));
    (pairs.len() >= 2 && xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

#[cfg(test)]
mod tests {
    use super::pearson;

    #[test]
    fn correlation_of_known_numbers() {
        assert_eq!(pearson([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(1.0));
        assert_eq!(pearson([(0.0, 1.0), (1.0, -1.0)]), Some(-1.0));
        let some = pearson([(1.0, 2.0), (2.0, 1.0), (3.0, 4.0)]).unwrap();
        assert!((some - 0.654_653_670_707_977).abs() < 1e-12, "{some}");
        assert_eq!(pearson([(1.0, 2.0)]), None);
        assert_eq!(pearson([(1.0, 2.0), (1.0, 3.0)]), None);
    }
}
