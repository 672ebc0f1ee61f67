//! The normalized effect scale.

/// The effect scale that is 0 at the baseline of the patched run and of size 1 at the baseline of
/// the run patched from. The baselines are the metric's batch means on the clean and on the
/// corrupted prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    clean: f64,
    corrupted: f64,
}

/// The baselines coincide or are not finite, and define no effect scale.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "the metric is {clean} on the clean prompts and {corrupted} on the corrupted prompts: there is no difference to \
     normalize by; use an unnormalized metric (logit-diff)"
)]
pub struct NormalizationError {
    /// Mean over the clean prompts.
    pub clean: f64,
    /// Mean over the corrupted prompts.
    pub corrupted: f64,
}

impl Normalization {
    /// Creates the scale from the two baselines.
    ///
    /// # Errors
    /// [`NormalizationError`] if the baselines coincide to within float32, or are not finite.
    pub fn new(clean: f64, corrupted: f64) -> Result<Self, NormalizationError> {
        let distance = (clean - corrupted).abs();
        let noise = f64::from(f32::EPSILON) * 16.0 * clean.abs().max(corrupted.abs()).max(1e-6);
        match distance.is_finite() && distance > noise {
            true => Ok(Self { clean, corrupted }),
            false => Err(NormalizationError { clean, corrupted }),
        }
    }

    /// Returns the clean baseline minus the corrupted baseline, which divides changes of the
    /// metric.
    #[must_use]
    pub fn span(&self) -> f64 {
        self.clean - self.corrupted
    }

    /// Returns a change of the metric as a share of the span.
    #[must_use]
    pub fn scale(&self, change: f64) -> f64 {
        change / self.span()
    }
}
