//! The span that normalized effects are divided by, its spread over prompts, and the warnings about
//! an outcome.

use std::fmt;

use crate::attribution::edges::EdgeAttribution;
use crate::effects::{Baselines, Outcome};
use crate::patching::groups::GroupOutcome;
use crate::run::question::Scale;

/// The divisor of normalized effects: clean mean less corrupted mean of the metric, and its spread
/// over prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Mean over prompts, in units of the metric.
    pub mean: f64,
    /// Sample standard deviation over prompts; `None` for a single prompt.
    pub sd: Option<f64>,
    /// Standard error of the mean; `None` for a single prompt.
    pub standard_error: Option<f64>,
    /// Mean absolute metric, over prompts and both runs.
    pub size: f64,
    /// Number of prompts.
    pub prompts: usize,
}

/// Whether a span is large enough to divide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanVerdict {
    /// The span is large enough.
    Sound,
    /// The span is less than two standard errors from 0: with other prompts its sign might be
    /// reversed.
    WithinItsSpread,
    /// The span is less than a hundredth of the metric's mean size: both runs behave the same. With
    /// fewer than five prompts the limit is a twentieth, because the spread of so few prompts is
    /// hardly known.
    SmallBesideTheMetric,
}

/// Smallest sound distance of a span from 0, in standard errors.
const ERRORS: f64 = 2.0;
/// Number of prompts from which their spread counts as known.
const MANY: usize = 5;
/// Smallest sound share of the metric's mean size: for many prompts, and for few.
const SHARES: [f64; 2] = [0.01, 0.05];

impl Baselines {
    /// Returns clean mean less corrupted mean, and its spread over prompts.
    #[must_use]
    pub fn span(&self) -> Span {
        let differences: Vec<f64> =
            self.clean.iter().zip(&self.corrupted).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let n = differences.len();
        let mean = differences.iter().sum::<f64>() / n.max(1) as f64;
        let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        let sizes = self.clean.iter().chain(&self.corrupted).map(|v| f64::from(v.abs()));
        let size = sizes.sum::<f64>() / (2 * n).max(1) as f64;
        Span { mean, sd, standard_error: sd.map(|sd| sd / (n as f64).sqrt()), size, prompts: n }
    }
}

impl Span {
    /// Returns whether the span is large enough to divide by. A single prompt has no spread, so its
    /// span is compared with the metric's size alone.
    #[must_use]
    pub fn verdict(&self) -> SpanVerdict {
        if self.standard_error.is_some_and(|error| self.mean.abs() < ERRORS * error) {
            return SpanVerdict::WithinItsSpread;
        }
        match self.mean.abs() < self.least_share() * self.size {
            true => SpanVerdict::SmallBesideTheMetric,
            false => SpanVerdict::Sound,
        }
    }

    fn least_share(&self) -> f64 {
        SHARES[usize::from(self.prompts < MANY)]
    }
}

/// A doubt about a result that is not an error. Displays as one line.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Effects are divided by a span that is small compared with its spread or with the metric.
    SmallSpan(Span),
    /// On some prompts (counted from 0) the metric's gradient vanishes, or nearly. Attribution
    /// gives no information about these prompts.
    GradientVanishes {
        /// The prompts.
        prompts: Vec<usize>,
        /// Number of prompts in all.
        of: usize,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::SmallSpan(span) => {
                let Span { mean, sd, standard_error, size, prompts } = span;
                write!(f, "effects are shares of the clean less the corrupted metric, which is only {mean:.4}")?;
                if let (Some(sd), Some(error)) = (sd, standard_error) {
                    write!(f, ", standard error {error:.4}, standard deviation {sd:.4} over {prompts} prompts")?;
                }
                write!(f, " (the metric's mean size is {size:.4})")?;
                match span.verdict() {
                    SpanVerdict::WithinItsSpread => f.write_str(
                        ": it is less than two standard errors from 0, and the effects may be noise; use more prompts",
                    ),
                    _ => {
                        let share = 100.0 * span.least_share();
                        write!(
                            f,
                            ": it is less than {share}% of that size, and the two runs hardly differ; use other \
                             prompts or metric units"
                        )
                    }
                }
            }
            Warning::GradientVanishes { prompts, of } => {
                let which = prompts.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let more = if prompts.len() > 5 { ", .." } else { "" };
                write!(
                    f,
                    "the metric's gradient vanishes on {} of {of} prompts ({which}{more}, counted from 0), although \
                     the metric changes; attribution gives no information about these prompts, and means count their \
                     effects as about 0",
                    prompts.len()
                )
            }
        }
    }
}

fn warnings(scale: Scale, baselines: &Baselines, vanished: &[usize]) -> Vec<Warning> {
    let span = baselines.span();
    let small = scale == Scale::Normalized && span.verdict() != SpanVerdict::Sound;
    let span = small.then_some(Warning::SmallSpan(span));
    let of = baselines.clean.len().max(baselines.corrupted.len());
    let vanished = (!vanished.is_empty()).then(|| Warning::GradientVanishes { prompts: vanished.to_vec(), of });
    span.into_iter().chain(vanished).collect()
}

impl Outcome {
    /// Returns the warnings about these effects.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        warnings(self.scale, &self.baselines, &self.vanished)
    }
}

impl GroupOutcome {
    /// Returns the warnings about these effects.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        warnings(self.scale, &self.baselines, &self.vanished)
    }
}

impl EdgeAttribution {
    /// Returns the warnings about these effects on `scale`.
    #[must_use]
    pub fn warnings(&self, scale: Scale) -> Vec<Warning> {
        warnings(scale, &self.baselines, &self.vanished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(clean: &[f32], corrupted: &[f32]) -> Span {
        Baselines { clean: clean.to_vec(), corrupted: corrupted.to_vec() }.span()
    }

    #[test]
    fn span_and_standard_error_match_known_numbers() {
        // Differences 1, 2, 3, 4: mean 2.5, standard deviation sqrt(5 / 3), standard error half of
        // that.
        let found = span(&[1.0, 2.0, 3.0, 4.0], &[0.0; 4]);
        assert_eq!((found.mean, found.size, found.prompts), (2.5, 1.25, 4));
        assert!((found.sd.unwrap() - 1.290_994_4).abs() < 1e-6);
        assert!((found.standard_error.unwrap() - 0.645_497_2).abs() < 1e-6);
        let single = span(&[3.0], &[1.0]);
        assert_eq!((single.mean, single.sd, single.standard_error, single.size), (2.0, None, None, 2.0));
    }

    #[test]
    fn a_span_within_two_standard_errors_is_doubtful() {
        // Differences 3 and x: the mean is two standard errors from 0 if (3 + x) / 2 = 2 (3 - x) /
        // 2, which gives x = 1.
        assert_eq!(span(&[3.0, 1.01], &[0.0; 2]).verdict(), SpanVerdict::Sound);
        assert_eq!(span(&[3.0, 0.99], &[0.0; 2]).verdict(), SpanVerdict::WithinItsSpread);
        assert_eq!(span(&[-3.0, -0.99], &[0.0; 2]).verdict(), SpanVerdict::WithinItsSpread);
    }

    #[test]
    fn a_span_that_is_small_beside_the_metric_is_doubtful() {
        // Clean 1, corrupted 1 - s: the size is 1 - s / 2. The limit for few prompts is s = 0.05 (1
        // - s / 2) = 0.0488; for many prompts it is 0.00995.
        for n in [1, 4] {
            assert_eq!(span(&vec![1.0; n], &vec![0.951; n]).verdict(), SpanVerdict::Sound);
            assert_eq!(span(&vec![1.0; n], &vec![0.952; n]).verdict(), SpanVerdict::SmallBesideTheMetric);
        }
        assert_eq!(span(&[1.0; 5], &[0.99; 5]).verdict(), SpanVerdict::Sound);
        // The span has no spread and is small nevertheless.
        assert_eq!(span(&[1.0; 5], &[0.9902; 5]).verdict(), SpanVerdict::SmallBesideTheMetric);
    }

    #[test]
    fn small_spans_warn_on_the_normalized_scale_only() {
        let baselines = Baselines { clean: vec![3.55], corrupted: vec![3.541] };
        let found = warnings(Scale::Normalized, &baselines, &[]);
        let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(found.len() == 1 && text.contains("only 0.0090") && text.contains("mean size is 3.5455"), "{text}");
        assert_eq!(warnings(Scale::Metric, &baselines, &[]), []);
        let vanished = warnings(Scale::Metric, &baselines, &[0]);
        assert!(vanished[0].to_string().contains("vanishes on 1 of 1 prompts (0, counted from 0)"), "{}", vanished[0]);
    }
}
