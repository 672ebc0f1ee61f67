//! The probability of the answers, alone and minus that of the wrong answers.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::metrics::metric::{Metric, Reads, UNIT_ROUNDOFF};
use crate::pairs::PromptPairs;

/// Probability that the next token is one of the answers, at END: the sum of their probabilities,
/// from 0 to 1.
#[derive(Debug, Clone)]
pub struct Probability {
    pub(crate) positions: Vec<usize>,
    pub(crate) answers: Vec<Vec<u32>>,
}

impl Probability {
    /// Creates the metric for these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        Self { positions: pairs.ends(), answers: pairs.pairs().iter().map(|p| p.answers.clone()).collect() }
    }

    /// Reads the logits at these positions, one per prompt, instead of at END.
    #[must_use]
    pub fn at(self, positions: Vec<usize>) -> Self {
        Self { positions, ..self }
    }
}

impl Metric for Probability {
    fn name(&self) -> &'static str {
        "probability"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.positions.clone(), columns: None }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = answer_indicator(&self.answers, prompts, &logits);
        weighted_probability(logits, weights)
    }

    /// Estimates the rounding error. Let `u` be the unit roundoff and `x` the logit minus the
    /// largest logit. A probability `exp x / sum exp x` has three relative errors: `u (|x| + 2)`
    /// from its exponential, the mean of these errors over all columns from the sum, and the
    /// rounding of the sum (see [`KlDivergence`](crate::KlDivergence)).
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = answer_indicator(&self.answers, prompts, &logits);
        probability_rounding(logits, weights)
    }
}

/// Probability that the next token is one of the answers, minus the probability that it is one of
/// the wrong answers, at END. Between -1 and 1.
///
/// This is the metric of the greater-than task (Hanna et al. 2023), `prob_diff` in EAP-IG.
#[derive(Debug, Clone)]
pub struct ProbabilityDifference {
    positions: Vec<usize>,
    answers: Vec<Vec<u32>>,
    wrong_answers: Vec<Vec<u32>>,
}

impl ProbabilityDifference {
    /// Creates the metric for these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        Self {
            positions: pairs.ends(),
            answers: pairs.pairs().iter().map(|p| p.answers.clone()).collect(),
            wrong_answers: pairs.pairs().iter().map(|p| p.wrong_answers.clone()).collect(),
        }
    }

    /// Reads the logits at these positions, one per prompt, instead of at END.
    #[must_use]
    pub fn at(self, positions: Vec<usize>) -> Self {
        Self { positions, ..self }
    }

    /// Returns 1 at the answers and 0 elsewhere, and the same for the wrong answers.
    fn indicators<B: Backend>(&self, prompts: &[usize], like: &Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
        [&self.answers, &self.wrong_answers].map(|answers| answer_indicator(answers, prompts, like))
    }
}

impl Metric for ProbabilityDifference {
    fn name(&self) -> &'static str {
        "prob-diff"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.positions.clone(), columns: None }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let [right, wrong] = self.indicators(prompts, &logits);
        weighted_probability(logits, right - wrong)
    }

    /// Estimates the rounding error as the sum of the errors of both probabilities.
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let [right, wrong] = self.indicators(prompts, &logits);
        probability_rounding(logits, right + wrong)
    }
}

/// Returns the sum of the probabilities of all tokens, each times its weight, `[row]`.
fn weighted_probability<B: Backend>(logits: Tensor<B, 2>, weights: Tensor<B, 2>) -> Tensor<B, 1> {
    let rows = logits.dims()[0];
    (softmax(logits, 1) * weights).sum_dim(1).reshape([rows])
}

/// Returns the rounding error of a sum of probabilities with these weights, `[row]`.
fn probability_rounding<B: Backend>(logits: Tensor<B, 2>, weights: Tensor<B, 2>) -> Tensor<B, 1> {
    let [rows, d_vocab] = logits.dims();
    let of_sum = (d_vocab as f32).sqrt();
    let probabilities = softmax(logits.clone(), 1);
    let of_exponential = (logits.clone() - logits.max_dim(1)).abs() + 2.0;
    let of_all = (probabilities.clone() * of_exponential.clone()).sum_dim(1);
    let shares = (of_exponential + of_all + of_sum) * UNIT_ROUNDOFF;
    (probabilities * weights * shares).sum_dim(1).reshape([rows])
}

/// Returns 1 at the answers of each row's prompt and 0 elsewhere, `[row, token]`.
pub(crate) fn answer_indicator<B: Backend>(
    answers: &[Vec<u32>],
    prompts: &[usize],
    like: &Tensor<B, 2>,
) -> Tensor<B, 2> {
    let [n_rows, d_vocab] = like.dims();
    let mut data = vec![0.0_f32; n_rows * d_vocab];
    for (row, &prompt) in prompts.iter().enumerate() {
        for &answer in &answers[prompt] {
            data[row * d_vocab + answer as usize] = 1.0;
        }
    }
    Tensor::from_data(TensorData::new(data, [n_rows, d_vocab]), &like.device())
}
