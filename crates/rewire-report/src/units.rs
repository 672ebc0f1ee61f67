//! Units of metrics and effects.

use rewire_analysis::heads::LOGIT_DIFF_BEFORE_CAP;
use rewire_analysis::run::Scale;

/// The unit of effects on the normalized scale.
pub const SHARE: &str = "share of the clean–corrupted difference";

/// Returns the unit of effects: a share on the normalized scale, the metric's unit otherwise.
///
/// Both arguments are fields of [`Outcome`](rewire_analysis::Outcome).
///
/// ```
/// use rewire_analysis::run::Scale;
/// use rewire_report::units::unit;
///
/// assert_eq!(unit("logit-diff", Scale::Metric), "logits");
/// assert_eq!(unit("logit-diff", Scale::Normalized), "share of the clean–corrupted difference");
/// ```
#[must_use]
pub fn unit(metric: &str, scale: Scale) -> &'static str {
    match scale {
        Scale::Normalized => SHARE,
        Scale::Metric => of_metric(metric),
    }
}

/// Returns the unit of a metric, from the metric's name. A metric with an unknown name, such as a
/// closure of the caller, has "units of the metric".
#[must_use]
pub fn of_metric(metric: &str) -> &'static str {
    match metric {
        LOGIT_DIFF_BEFORE_CAP => "logits before the soft cap",
        "kl" => "nats",
        "accuracy" => "share of prompts",
        name if name.starts_with("log-prob") || name.contains("-log-prob") => "nats",
        name if name.starts_with("logit") => "logits",
        name if name.starts_with("prob") => "probability",
        _ => "units of the metric",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_metric_has_a_unit() {
        let names = ["logit-diff", "probability", "prob-diff", "kl", "accuracy", "log-prob", "my metric"];
        let units = ["logits", "probability", "probability", "nats", "share of prompts", "nats", "units of the metric"];
        assert_eq!(names.map(|name| unit(name, Scale::Metric)), units);
        assert_eq!(of_metric(LOGIT_DIFF_BEFORE_CAP), "logits before the soft cap");
        assert!(names.iter().all(|name| unit(name, Scale::Normalized) == SHARE));
    }
}
