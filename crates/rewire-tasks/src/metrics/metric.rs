//! The [`Metric`] trait: one number per prompt, from some of the prompt's logits.

use burn::tensor::{Tensor, backend::Backend};

/// Which logits a metric asks for, in all prompts of an analysis.
///
/// It names logits and not a run: for each run of a batch of prompts, an analysis makes the model's
/// readout (`Readout` in rewire-model) from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// The positions that the metric reads, prompt by prompt:
    /// [`positions_per_prompt`](Metric::positions_per_prompt) of each, which is one unless the
    /// metric says otherwise.
    pub positions: Vec<usize>,
    /// The vocabulary columns that the metric reads, in this order; `None` for all.
    pub columns: Option<Vec<usize>>,
}

/// The gradient of a metric at the clean run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtClean {
    /// The gradient is not 0 in general.
    Varies,
    /// The gradient is 0, because the metric has its minimum or maximum at the clean run.
    Stationary,
}

/// Computes one number per prompt from the prompt's logits.
///
/// A metric is differentiable unless [`is_differentiable`](Self::is_differentiable) returns false.
/// Every analysis returns an error if the metric, or a logit that the metric reads, is not finite.
pub trait Metric: Sync {
    /// Returns the metric's name in commands and files.
    fn name(&self) -> &'static str;

    /// Returns which logits the metric reads.
    fn reads(&self) -> Reads;

    /// Returns the number of positions that the metric reads in each prompt, at least 1.
    ///
    /// A metric that reads fewer positions in some prompts than in others names a position twice,
    /// and ignores the second.
    fn positions_per_prompt(&self) -> usize {
        1
    }

    /// Returns the metric of each row of a run, `[row]`. Row `i` belongs to prompt `prompts[i]`.
    ///
    /// `logits` are `[row * positions, columns read]`: the logits of the first row at each position
    /// that the metric reads, then those of the second row, and so on. If the metric reads one
    /// position per prompt, they are `[row, columns read]`.
    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1>;

    /// Returns whether the metric's gradient is informative.
    fn is_differentiable(&self) -> bool {
        true
    }

    /// Returns the largest error, `[row]`, that float32 rounding inside
    /// [`evaluate`](Self::evaluate) may cause on these logits, to first order and in the metric's
    /// unit. Smaller changes of the metric are rounding.
    ///
    /// The default is one unit in the last place of the value. A metric that is a small difference
    /// of large terms must return more.
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        self.evaluate(logits, prompts).abs() * f32::EPSILON
    }

    /// Returns whether the metric's gradient is 0 at the clean run, as for a divergence from the
    /// clean run. Methods that take the gradient at the clean run refuse such a metric.
    fn at_clean(&self) -> AtClean {
        AtClean::Varies
    }
}

/// The unit roundoff of float32: the largest relative error of one operation.
pub(crate) const UNIT_ROUNDOFF: f32 = f32::EPSILON / 2.0;
