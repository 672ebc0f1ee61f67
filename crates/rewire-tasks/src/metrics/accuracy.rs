//! Accuracy: whether the most likely next token is an answer.

use burn::tensor::{Tensor, backend::Backend};

use crate::metrics::metric::{Metric, Reads};
use crate::metrics::probability::{Probability, answer_indicator};
use crate::pairs::PromptPairs;

/// 1 if the most likely next token at END is one of the answers, else 0; NaN if a logit is not
/// finite.
///
/// Its gradient is 0 or undefined, and methods that need gradients refuse this metric.
#[derive(Debug, Clone)]
pub struct Accuracy {
    positions: Vec<usize>,
    answers: Vec<Vec<u32>>,
}

impl Accuracy {
    /// Creates the metric for these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        let Probability { positions, answers } = Probability::new(pairs);
        Self { positions, answers }
    }

    /// Reads the logits at these positions, one per prompt, instead of at END.
    #[must_use]
    pub fn at(self, positions: Vec<usize>) -> Self {
        Self { positions, ..self }
    }
}

impl Metric for Accuracy {
    fn name(&self) -> &'static str {
        "accuracy"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.positions.clone(), columns: None }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = answer_indicator(&self.answers, prompts, &logits);
        // A row with a logit that is not finite has no most likely token.
        let nan_or_zero = (logits.clone().detach() * 0.0).sum_dim(1);
        let chosen = logits.argmax(1); // [row, 1]
        (weights.gather(1, chosen) + nan_or_zero).reshape([prompts.len()])
    }

    fn is_differentiable(&self) -> bool {
        false
    }
}
