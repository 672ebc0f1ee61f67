//! The span that effects are normalized by, its spread over prompts, and the warnings about an
//! outcome.

use std::fmt;

use crate::attribution::edges::EdgeAttribution;
use crate::effects::{Baselines, Outcome};
use crate::patching::groups::GroupOutcome;
use crate::run::question::Scale;

/// The divisor of normalized effects: clean mean less corrupted mean of the metric, and its spread
/// over prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Its mean over prompts, in the metric's unit.
    pub mean: f64,
    /// Its standard deviation over prompts (of a sample); `None` for a single prompt.
    pub sd: Option<f64>,
    /// The standard error of its mean; `None` for a single prompt.
    pub standard_error: Option<f64>,
    /// Mean size of the metric itself, over prompts and both runs.
    pub size: f64,
    /// How many prompts.
    pub prompts: usize,
}

/// Whether a span is large enough to divide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanVerdict {
    /// It is large enough.
    Sound,
    /// It is less than two standard errors from 0: with other prompts it might have the other sign.
    WithinItsSpread,
    /// It is less than a hundredth of the metric's mean size, or, of fewer than five prompts, whose
    /// spread is hardly known, less than a twentieth: both runs behave the same.
    SmallBesideTheMetric,
}

/// Standard errors that a span must be from 0.
const ERRORS: f64 = 2.0;
/// Prompts from which on their spread is taken to be known.
const MANY: usize = 5;
/// Share of the metric's mean size that a span of many prompts must have, and one of few.
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
    /// Effects are divided by a span that is small beside its spread or beside the metric.
    SmallSpan(Span),
    /// On some prompts (counted from 0) the metric's gradient vanishes, or nearly: attribution says
    /// nothing about them.
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
                    SpanVerdict::WithinItsSpread => {
                        f.write_str(": less than two standard errors, so the shares may be of noise")
                    }
                    _ => {
                        let share = 100.0 * span.least_share();
                        write!(
                            f,
                            ": less than {share}% of that size, so the shares are of a difference that is hardly there"
                        )
                    }
                }
            }
            Warning::GradientVanishes { prompts, of } => {
                let which = prompts.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let more = if prompts.len() > 5 { ", .." } else { "" };
                write!(
                    f,
                    "the metric's gradient vanishes on {} of {of} prompts ({which}{more}, counted from 0) beside the change of the \
                     metric: attribution says nothing about them, and in means they count as about 0",
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
    /// Returns the warnings about these effects, if they are in this unit.
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
    fn the_span_and_its_spread_of_known_numbers() {
        // Differences 1, 2, 3, 4: mean 2.5, deviation sqrt(5 / 3), error that over 2.
        let found = span(&[1.0, 2.0, 3.0, 4.0], &[0.0; 4]);
        assert_eq!((found.mean, found.size, found.prompts), (2.5, 1.25, 4));
        assert!((found.sd.unwrap() - 1.290_994_4).abs() < 1e-6);
        assert!((found.standard_error.unwrap() - 0.645_497_2).abs() < 1e-6);
        let single = span(&[3.0], &[1.0]);
        assert_eq!((single.mean, single.sd, single.standard_error, single.size), (2.0, None, None, 2.0));
    }

    #[test]
    fn a_span_within_two_standard_errors_is_doubtful() {
        // Differences 3 and x: the mean is two errors from 0 where (3 + x) / 2 = 2 (3 - x) / 2, at
        // x = 1.
        assert_eq!(span(&[3.0, 1.01], &[0.0; 2]).verdict(), SpanVerdict::Sound);
        assert_eq!(span(&[3.0, 0.99], &[0.0; 2]).verdict(), SpanVerdict::WithinItsSpread);
        assert_eq!(span(&[-3.0, -0.99], &[0.0; 2]).verdict(), SpanVerdict::WithinItsSpread);
    }

    #[test]
    fn a_span_that_is_small_beside_the_metric_is_doubtful() {
        // Clean 1, corrupted 1 - s: the size is 1 - s / 2, so the limit is at s = 0.05 (1 - s / 2),
        // 0.0488, for few prompts and at 0.00995 for many.
        for n in [1, 4] {
            assert_eq!(span(&vec![1.0; n], &vec![0.951; n]).verdict(), SpanVerdict::Sound);
            assert_eq!(span(&vec![1.0; n], &vec![0.952; n]).verdict(), SpanVerdict::SmallBesideTheMetric);
        }
        assert_eq!(span(&[1.0; 5], &[0.99; 5]).verdict(), SpanVerdict::Sound);
        // It has no spread at all, and is small all the same.
        assert_eq!(span(&[1.0; 5], &[0.9902; 5]).verdict(), SpanVerdict::SmallBesideTheMetric);
    }

    #[test]
    fn only_shares_are_warned_of() {
        let baselines = Baselines { clean: vec![3.55], corrupted: vec![3.541] };
        let found = warnings(Scale::Normalized, &baselines, &[]);
        let told = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(found.len() == 1 && told.contains("only 0.0090") && told.contains("mean size is 3.5455"), "{told}");
        assert_eq!(warnings(Scale::Metric, &baselines, &[]), []);
        let vanished = warnings(Scale::Metric, &baselines, &[0]);
        assert!(vanished[0].to_string().contains("vanishes on 1 of 1 prompts (0, counted from 0)"), "{}", vanished[0]);
    }
}
