//! Float32 rounding in effects: a smaller effect is no evidence of anything.

use ndarray::ArrayView;
use rewire_analysis::Outcome;
use rewire_analysis::run::Scale;

use crate::units;

/// Rounding of a metric after a forward pass in float32, as a share of the metric's size.
pub const ROUNDING: f32 = 1e-5;

/// Returns the size below which effects may be float32 rounding, in the unit of the effects:
/// [`ROUNDING`] times the larger absolute baseline, divided by the clean–corrupted difference on
/// the normalized scale.
///
/// Logits, and log-probabilities in nats, are rounded like numbers of at least size 1: a small
/// difference of logits is the difference of larger ones.
#[must_use]
pub fn floor(outcome: &Outcome) -> f32 {
    let [clean, corrupted] = outcome.baselines.means();
    let smallest = match units::of_metric(outcome.metric) {
        "logits" | "nats" => 1.0,
        _ => 0.0,
    };
    let size = clean.abs().max(corrupted.abs()).max(smallest);
    let in_unit = match outcome.scale {
        Scale::Metric => size,
        Scale::Normalized => size / (clean - corrupted).abs(),
    };
    let floor = ROUNDING * in_unit as f32;
    // Without a span, the normalized scale has no meaning, and no number is below its rounding.
    if floor.is_finite() { floor } else { 0.0 }
}

/// Returns whether every value is nearer to 0 than `floor`. A missing value (NaN) counts as
/// nearer.
#[must_use]
pub fn is_all_below<D: ndarray::Dimension>(values: &ArrayView<f32, D>, floor: f32) -> bool {
    values.iter().all(|value| value.is_nan() || value.abs() < floor || *value == 0.0)
}

/// Returns the sentence that replaces a table or map of nothing but rounding.
#[must_use]
pub fn all_below(floor: f32) -> String {
    match floor {
        0.0 => "All effects are 0.".to_owned(),
        _ => format!("All effects are below {floor:.0e} and may be float32 rounding."),
    }
}

#[cfg(test)]
mod tests {
    use rewire_analysis::run::Direction;
    use rewire_analysis::{Baselines, Method};

    use super::*;

    fn outcome(metric: &'static str, scale: Scale, [clean, corrupted]: [f32; 2]) -> Outcome {
        Outcome {
            method: Method::ActivationPatching,
            direction: Direction::Denoising,
            scale,
            metric,
            baselines: Baselines { clean: vec![clean], corrupted: vec![corrupted] },
            vanished: vec![],
            effects: vec![],
        }
    }

    #[test]
    fn the_floor_follows_the_size_of_the_metric_and_the_scale() {
        let floor = |metric, scale, ends| floor(&outcome(metric, scale, ends));
        assert_eq!(floor("logit-diff", Scale::Metric, [4.0, -8.0]), 8.0 * ROUNDING);
        assert_eq!(floor("logit-diff", Scale::Metric, [0.1, 0.0]), ROUNDING);
        assert_eq!(floor("probability", Scale::Metric, [0.001, 0.0]), 0.001 * ROUNDING);
        // A span of 2 logits between logit differences of 3 and 5.
        assert_eq!(floor("logit-diff", Scale::Normalized, [5.0, 3.0]), 2.5 * ROUNDING);
        assert_eq!(floor("logit-diff", Scale::Normalized, [1.0, 1.0]), 0.0);
    }

    #[test]
    fn rounding_and_missing_values_are_no_effects() {
        let below = |values: &[f32]| is_all_below(&ndarray::aview1(values), 1e-5);
        assert!(below(&[0.0, -9e-6, f32::NAN]));
        assert!(!below(&[0.0, 2e-5]));
        assert_eq!(all_below(1e-5), "All effects are below 1e-5 and may be float32 rounding.");
    }
}
