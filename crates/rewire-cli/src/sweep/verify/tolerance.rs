//! The largest difference at which a recorded number counts as confirmed.

use rewire_analysis::run::Scale;
use rewire_report::Table;
use serde_json::Value;

use super::share::Share;
use crate::device::Device;
use crate::sweep::prepared::Prepared;
use crate::verify::recorded::Recorded;

/// Float32 rounding, as a share of the largest value of the metric. It is the accuracy to which
/// Rewire agrees with other implementations.
const ROUNDING: f64 = 1e-4;

/// The tolerance, and its reason.
pub(super) struct Tolerance {
    /// On the scale of the metric; 0 if the bits must be equal.
    metric: f64,
    /// The tolerance on the normalized scale over that of the metric.
    normalized: f64,
    reason: &'static str,
}

impl Tolerance {
    /// Returns the tolerance for numbers that were computed again. `is_same` says that all inputs
    /// and the machine are the recorded ones.
    pub(super) fn new(recorded: &Recorded, prepared: &Prepared, share: &Share, is_same: bool) -> Self {
        let is_on_cpu = matches!(prepared.session.device(), Device::Flex | Device::NdArray);
        if is_same && is_on_cpu && matches!(share, Share::Whole(_)) {
            let reason = "the same program and inputs give the same bits on the same kind of machine";
            return Self { metric: 0.0, normalized: 0.0, reason };
        }
        let baselines = &recorded.about["baselines"];
        let number = |key: &str| baselines[key].as_f64().unwrap_or(0.0);
        let values = ["clean", "corrupted"].into_iter().flat_map(|key| baselines[key].as_array().into_iter().flatten());
        let largest = values.filter_map(Value::as_f64).fold(1.0, |most: f64, value| most.max(value.abs()));
        let difference = (number("clean_mean") - number("corrupted_mean")).abs();
        let (metric, reason) = match error_of_short_numbers(&recorded.about) {
            // Both computations may be this far from float32.
            Some(error) => (2.0 * error + ROUNDING * largest, "twice the recorded error against float32, and rounding"),
            None => (ROUNDING * largest, "float32 rounding: 1e-4 of the largest metric of a prompt, or of 1"),
        };
        Self { metric, normalized: 1.0 / difference.max(f64::MIN_POSITIVE), reason }
    }

    /// Returns whether the bits must be equal.
    pub(super) fn is_exact(&self) -> bool {
        self.metric == 0.0
    }

    /// Returns the tolerance on the scale of the metric.
    pub(super) fn metric(&self) -> f64 {
        self.metric
    }

    /// Returns the tolerance of the numbers in a table.
    pub(super) fn of(&self, table: &Table) -> f64 {
        match table.scale {
            Some(Scale::Normalized) => self.metric * self.normalized,
            _ => self.metric,
        }
    }

    /// Returns the tolerance and its reason.
    pub(super) fn in_words(&self) -> String {
        match self.is_exact() {
            true => format!("0 ({})", self.reason),
            false => format!("{:.1e} on the scale of the metric ({})", self.metric, self.reason),
        }
    }
}

/// Returns the largest recorded error of numbers shorter than float32, on the scale of the metric.
fn error_of_short_numbers(about: &Value) -> Option<f64> {
    let tables = about["notes"]["against_float32"]["tables"].as_object()?;
    Some(tables.values().filter_map(|table| table["largest_error"].as_f64()).fold(0.0, f64::max))
}
