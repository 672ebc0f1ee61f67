//! The log-probability of answers of one or more tokens.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::metrics::metric::{Metric, Reads, UNIT_ROUNDOFF};
use crate::pairs::PromptPairs;

/// Log-probability of the answer, in nats: the sum over its tokens of the log-probability of the
/// token after the prompt and the answer's earlier tokens. At most 0.
///
/// The pairs come from [`PromptPairs::with_whole_answers`], whose prompts end in all tokens of the
/// answer but the last, or from [`PromptPairs::new`], whose answers have one token. If a pair has
/// several answers, the metric is the log of the sum of their probabilities. Wrong answers are not
/// read.
///
/// It reads one position per token of the answer: END of the prompt without its answer, and the
/// positions of the answer's tokens but the last.
#[derive(Debug, Clone)]
pub struct LogProbability {
    /// `per_prompt` positions of each prompt. A prompt with a shorter answer names its last
    /// position again.
    positions: Vec<usize>,
    per_prompt: usize,
    /// The tokens whose probabilities are summed, at each of the positions of each prompt.
    tokens: Vec<Vec<Vec<u32>>>,
}

/// A number that float32 holds and whose exponential is 0.
const FAR_BELOW: f32 = -1e30;

impl LogProbability {
    /// Creates the metric for these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        let per_prompt = 1 + (0..pairs.len()).map(|pair| pairs.begun(pair)).max().unwrap_or_default();
        let (mut positions, mut tokens) =
            (Vec::with_capacity(pairs.len() * per_prompt), Vec::with_capacity(pairs.len()));
        for (number, pair) in pairs.pairs().iter().enumerate() {
            let (end, begun) = (pairs.end(number), pairs.begun(number));
            positions.extend((0..per_prompt).map(|i| (end - begun + i).min(end)));
            let given = pair.clean[end + 1 - begun..].iter().map(|&token| vec![token]);
            let mut last = pair.answers.clone();
            last.sort_unstable();
            last.dedup();
            tokens.push(given.chain([last]).collect());
        }
        Self { positions, per_prompt, tokens }
    }

    /// Returns the tokens of each row of the logits as indices, `[row * positions, token]`. Rows of
    /// fewer tokens repeat one, and the second tensor has [`FAR_BELOW`] there and 0 elsewhere.
    fn tokens<B: Backend>(&self, prompts: &[usize], device: &B::Device) -> (Tensor<B, 2, Int>, Tensor<B, 2>) {
        let of_row = |prompt: usize, i: usize| &self.tokens[prompt][i.min(self.tokens[prompt].len() - 1)];
        let rows: Vec<&Vec<u32>> =
            prompts.iter().flat_map(|&prompt| (0..self.per_prompt).map(move |i| of_row(prompt, i))).collect();
        let most = rows.iter().map(|tokens| tokens.len()).max().unwrap_or_default();
        let shape = [rows.len(), most];
        let index = rows.iter().flat_map(|tokens| (0..most).map(move |i| tokens[i.min(tokens.len() - 1)] as i32));
        let index: Vec<i32> = index.collect();
        let far = rows.iter().flat_map(|tokens| (0..most).map(move |i| if i < tokens.len() { 0.0 } else { FAR_BELOW }));
        let far: Vec<f32> = far.collect();
        (
            Tensor::from_data(TensorData::new(index, shape), device),
            Tensor::from_data(TensorData::new(far, shape), device),
        )
    }

    /// Returns 1 at the positions that count and 0 at those that only fill up a prompt with a
    /// shorter answer, `[row, position]`.
    fn counts<B: Backend>(&self, prompts: &[usize], device: &B::Device) -> Tensor<B, 2> {
        let counts =
            |&prompt: &usize| (0..self.per_prompt).map(move |i| f32::from(u8::from(i < self.tokens[prompt].len())));
        let counts: Vec<f32> = prompts.iter().flat_map(counts).collect();
        Tensor::from_data(TensorData::new(counts, [prompts.len(), self.per_prompt]), device)
    }

    /// Returns the sum over the positions of each row that count, `[row]`, of numbers
    /// `[row * positions, 1]`.
    fn sum<B: Backend>(&self, of_positions: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let counts = self.counts(prompts, &of_positions.device());
        (of_positions.reshape([prompts.len(), self.per_prompt]) * counts).sum_dim(1).reshape([prompts.len()])
    }
}

/// Returns the log of the sum of the exponentials of each row, `[row, 1]`.
fn log_sum_exp<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let largest = x.clone().detach().max_dim(1);
    (x - largest.clone()).exp().sum_dim(1).log() + largest
}

impl Metric for LogProbability {
    fn name(&self) -> &'static str {
        "log-prob"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.positions.clone(), columns: None }
    }

    fn positions_per_prompt(&self) -> usize {
        self.per_prompt
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let (index, far) = self.tokens(prompts, &logits.device());
        self.sum(log_sum_exp(log_softmax(logits, 1).gather(1, index) + far), prompts)
    }

    /// Estimates the rounding error. Let `u` be the unit roundoff, `n` the number of columns, `x` a
    /// logit minus the largest logit, and `q = exp x / sum exp x`. The errors at one position are:
    ///
    /// - `x` and `log q` of each token are rounded once each, by `u (|x| + |log q|)`.
    /// - The error of `log sum exp x` is the mean under q of the exponentials' relative errors,
    ///   `u (|x| + 2)`, plus the rounding of the sum, `sqrt(n) u` (see
    ///   [`KlDivergence`](crate::KlDivergence)).
    /// - With `m > 1` answers, the sum of their probabilities adds at most `u (m + 4)` and its
    ///   logarithm rounds its value.
    ///
    /// The sum over positions rounds its value once per position.
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let of_sum = (logits.dims()[1] as f32).sqrt();
        let (index, far) = self.tokens(prompts, &logits.device());
        let log_run = log_softmax(logits.clone(), 1);
        let below_largest = (logits.clone() - logits.max_dim(1)).abs();
        let of_log_sum = (log_run.clone().exp() * (below_largest.clone() + 2.0)).sum_dim(1) + of_sum;
        let of_tokens = (below_largest + log_run.clone().abs()).gather(1, index.clone()).max_dim(1);
        let answers = index.dims()[1] as f32;
        let of_answers = if answers > 1.0 { answers + 4.0 } else { 0.0 };
        let value = log_sum_exp(log_run.gather(1, index) + far).abs();
        let of_positions = value * (self.per_prompt as f32 + 1.0) + of_tokens + of_log_sum + of_answers;
        self.sum(of_positions, prompts) * UNIT_ROUNDOFF
    }
}
