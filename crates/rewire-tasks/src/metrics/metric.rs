//! What a metric is: one number a prompt, from some of the logits after it.

use burn::tensor::{Tensor, backend::Backend};

/// Which logits a metric reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// The position read, per prompt.
    pub positions: Vec<usize>,
    /// The vocabulary columns read, in this order; `None` for all.
    pub columns: Option<Vec<usize>>,
}

/// The gradient of a metric at the clean run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtClean {
    /// It is not 0 in general.
    Varies,
    /// It is 0, because the metric is at its minimum or maximum at the clean run.
    Stationary,
}

/// One number a prompt from the logits after it; differentiable unless it says otherwise. A number
/// that is not finite is an error to every analysis, and so is a logit that is not finite among
/// those that the metric reads.
pub trait Metric: Sync {
    /// Its name, as commands and files have it.
    fn name(&self) -> &'static str;

    /// Which logits it reads.
    fn reads(&self) -> Reads;

    /// The metric of each row, `[row]`, from `logits` `[row, columns read]`; row `i` belongs to prompt `prompts[i]`.
    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1>;

    /// Whether its gradient says anything.
    fn is_differentiable(&self) -> bool {
        true
    }

    /// How far float32 rounding inside [`evaluate`](Self::evaluate) may put each row's metric from
    /// its exact value on these logits,
    /// `[row]`, to first order and in the metric's unit. Changes of the metric below this are
    /// rounding.
    ///
    /// The default is one unit in the last place of the value. A metric that is a small difference
    /// of large terms must give more.
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        self.evaluate(logits, prompts).abs() * f32::EPSILON
    }

    /// Returns whether its gradient is 0 at the clean run, as a divergence's from the clean run is.
    /// Methods that take the gradient there then refuse the metric.
    fn at_clean(&self) -> AtClean {
        AtClean::Varies
    }
}

/// The unit roundoff of float32: the largest relative error of one operation.
pub(crate) const UNIT_ROUNDOFF: f32 = f32::EPSILON / 2.0;
