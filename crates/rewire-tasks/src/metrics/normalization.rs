//! The scale on which effects are shares of the behavior.

/// The scale on which an effect is 0 for the run that is patched and of size 1 for the run patched from: a metric's batch
/// means on the clean and on the corrupted prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    clean: f64,
    corrupted: f64,
}

/// Baselines between which nothing can be scaled.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "the metric is {clean} on the clean prompts and {corrupted} on the corrupted ones: there is no difference to \
     normalize by; use an unnormalized metric (logit-diff)"
)]
pub struct NormalizationError {
    /// Mean over the clean prompts.
    pub clean: f64,
    /// Mean over the corrupted prompts.
    pub corrupted: f64,
}

impl Normalization {
    /// From the two means.
    ///
    /// # Errors
    /// [`NormalizationError`] where they coincide to within float32, or are not finite.
    pub fn new(clean: f64, corrupted: f64) -> Result<Self, NormalizationError> {
        let distance = (clean - corrupted).abs();
        let noise = f64::from(f32::EPSILON) * 16.0 * clean.abs().max(corrupted.abs()).max(1e-6);
        match distance.is_finite() && distance > noise {
            true => Ok(Self { clean, corrupted }),
            false => Err(NormalizationError { clean, corrupted }),
        }
    }

    /// Clean mean less corrupted mean: what a change of the metric is divided by.
    #[must_use]
    pub fn span(&self) -> f64 {
        self.clean - self.corrupted
    }

    /// A change of the metric as a share of the span.
    #[must_use]
    pub fn scale(&self, change: f64) -> f64 {
        change / self.span()
    }
}
