//! Which sign of an effect supports the behavior, so that one color means support in all methods.

use rewire_analysis::run::{Direction, Scale};
use rewire_analysis::{Method, Outcome};

/// Which sign of a value means that the node supports the behavior of the clean run.
///
/// Blue supports and red opposes in every chart, although the sign of an effect depends on the
/// method: restoring a supporting node raises the metric, removing it lowers the metric. Only the
/// colors depend on this; numbers keep their sign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Support {
    /// Values above 0 support the behavior.
    Above,
    /// Values below 0 support the behavior.
    Below,
    /// The sign says nothing about support. Values above 0 are blue.
    #[default]
    Unknown,
}

impl Support {
    /// Returns the sign that supports, for effects of a method.
    ///
    /// | method | a supporting node is |
    /// |---|---|
    /// | patching of each kind, denoising | above 0: its clean activation restores |
    /// | patching of each kind, noising | below 0: its corrupted activation removes |
    /// | ablation | below 0: the metric drops without it |
    /// | integrated gradients | below 0: the line leads away from its clean activation |
    /// | logit attribution | above 0: it writes toward the answer |
    ///
    /// For `kl` on its own scale the signs are reversed, because the divergence from the clean run
    /// is smallest on the clean run. On the normalized scale, effects are relative to the
    /// clean–corrupted difference of any metric, and are not reversed.
    #[must_use]
    pub fn of(method: Method, direction: Direction, scale: Scale, metric: &str) -> Self {
        let removes = match method {
            Method::Ablation | Method::IntegratedGradients => true,
            Method::LogitAttribution => false,
            Method::ActivationPatching | Method::AttributionPatching | Method::PathPatching => {
                direction == Direction::Noising
            }
        };
        let is_reversed = metric == "kl" && scale == Scale::Metric;
        if removes == is_reversed { Support::Above } else { Support::Below }
    }

    /// Returns the sign that supports, for the effects of an outcome.
    #[must_use]
    pub fn of_outcome(outcome: &Outcome) -> Self {
        Self::of(outcome.method, outcome.direction, outcome.scale, outcome.metric)
    }

    /// Returns whether a value supports the behavior; `None` for 0, NaN, and unknown support.
    #[must_use]
    pub fn supports(self, value: f32) -> Option<bool> {
        match self {
            _ if value == 0.0 || value.is_nan() => None,
            Support::Above => Some(value > 0.0),
            Support::Below => Some(value < 0.0),
            Support::Unknown => None,
        }
    }

    /// Returns the meaning of values below and above 0, for a color bar.
    pub(crate) fn words(self) -> Option<[&'static str; 2]> {
        match self {
            Support::Above => Some(["opposes", "supports"]),
            Support::Below => Some(["supports", "opposes"]),
            Support::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_color_means_support_in_every_method_and_direction() {
        use Direction::{Denoising, Noising};
        let cases = [
            (Method::ActivationPatching, Denoising, Support::Above),
            (Method::ActivationPatching, Noising, Support::Below),
            (Method::AttributionPatching, Denoising, Support::Above),
            (Method::AttributionPatching, Noising, Support::Below),
            (Method::PathPatching, Denoising, Support::Above),
            (Method::PathPatching, Noising, Support::Below),
            (Method::Ablation, Denoising, Support::Below),
            (Method::Ablation, Noising, Support::Below),
            (Method::IntegratedGradients, Denoising, Support::Below),
            (Method::IntegratedGradients, Noising, Support::Below),
            (Method::LogitAttribution, Denoising, Support::Above),
            (Method::LogitAttribution, Noising, Support::Above),
        ];
        for (method, direction, expected) in cases {
            let of = |scale, metric| Support::of(method, direction, scale, metric);
            assert_eq!(of(Scale::Metric, "logit-diff"), expected, "{method}, {direction}");
            assert_eq!(of(Scale::Normalized, "kl"), expected, "{method}, {direction}");
            assert_ne!(of(Scale::Metric, "kl"), expected, "{method}, {direction}");
        }
    }

    #[test]
    fn a_value_without_sign_neither_supports_nor_opposes() {
        assert_eq!([0.0, f32::NAN].map(|value| Support::Above.supports(value)), [None, None]);
        assert_eq!([0.5, -0.5].map(|value| Support::Below.supports(value)), [Some(false), Some(true)]);
        assert_eq!(Support::Unknown.supports(0.5), None);
    }
}
