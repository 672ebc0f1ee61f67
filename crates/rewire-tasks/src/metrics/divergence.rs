//! KL divergence of the next-token distribution from a reference.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::metrics::metric::{AtClean, Metric, Reads, UNIT_ROUNDOFF};
use crate::pairs::PromptPairs;

/// KL divergence KL(reference || run) of the next-token distributions at END, in nats.
#[derive(Debug, Clone)]
pub struct KlDivergence {
    positions: Vec<usize>,
    at_clean: AtClean,
    /// Log-probabilities of the reference, `[prompt][token]`.
    reference: Vec<Vec<f32>>,
}

impl KlDivergence {
    /// Creates the divergence from the clean run. `clean_logits` are the clean run's logits at END,
    /// one row per prompt over the whole vocabulary. The divergence is 0 at the clean run, which is
    /// its minimum, and its gradient is 0 there.
    #[must_use]
    pub fn new(pairs: &PromptPairs, clean_logits: &[Vec<f32>]) -> Self {
        Self { at_clean: AtClean::Stationary, ..Self::from_reference(pairs, clean_logits) }
    }

    /// Creates the divergence from a reference other than the clean run. `reference_logits` are the
    /// reference's logits at END, one row per prompt over the whole vocabulary.
    #[must_use]
    pub fn from_reference(pairs: &PromptPairs, reference_logits: &[Vec<f32>]) -> Self {
        let reference = reference_logits.iter().map(|logits| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let log_sum = f64::from(max) + logits.iter().map(|l| f64::from(l - max).exp()).sum::<f64>().ln();
            logits.iter().map(|&l| (f64::from(l) - log_sum) as f32).collect()
        });
        Self { positions: pairs.ends(), at_clean: AtClean::Varies, reference: reference.collect() }
    }

    /// Reads the logits at these positions, one per prompt, instead of at END. The
    /// reference's logits must be those at the same positions.
    #[must_use]
    pub fn at(self, positions: Vec<usize>) -> Self {
        Self { positions, ..self }
    }
}

impl Metric for KlDivergence {
    fn name(&self) -> &'static str {
        "kl"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.positions.clone(), columns: None }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let log_reference = rows(&self.reference, prompts, &logits);
        let difference = log_reference.clone() - log_softmax(logits, 1);
        (log_reference.exp() * difference).sum_dim(1).reshape([prompts.len()])
    }

    /// Estimates the rounding error of the divergence `sum p (log p - log q)`, in which logarithms
    /// of sizes up to some tens cancel to a difference that may be millionths.
    ///
    /// Let `u` be the unit roundoff, `n` the number of columns, `x` a logit of the run minus the
    /// largest logit, and `q = exp x / sum exp x`. The errors are:
    ///
    /// - A stored `log p` is rounded once, by `u |log p|`. The relative error of its exponential is
    ///   `u (|log p| + 2)`, which multiplies the difference.
    /// - `x` and `log q` are rounded once each, by `u (|x| + |log q|)`.
    /// - The error of `log sum exp x` is the mean under q of the exponentials' relative errors,
    ///   `u (|x| + 2)`, plus the rounding of the sum. It shifts every `log q` alike.
    /// - The last sum rounds `p |log p - log q|`.
    ///
    /// The roundings in a sum of n terms are assumed to be independent and add up to `sqrt(n) u`
    /// times the sum (Higham and Mary, "A new approach to probabilistic rounding error analysis",
    /// 2019). The other terms are bounds.
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let of_sum = (logits.dims()[1] as f32).sqrt();
        let log_reference = rows(&self.reference, prompts, &logits);
        let log_run = log_softmax(logits.clone(), 1);
        let below_largest = (logits.clone() - logits.max_dim(1)).abs();
        let difference = (log_reference.clone() - log_run.clone()).abs();
        let of_difference = log_reference.clone().abs() + (of_sum + 3.0);
        let of_logarithms = log_reference.clone().abs() + log_run.clone().abs() + below_largest.clone();
        let terms =
            log_reference.exp() * (of_logarithms + difference * of_difference) + log_run.exp() * (below_largest + 2.0);
        (terms.sum_dim(1).reshape([prompts.len()]) + of_sum) * UNIT_ROUNDOFF
    }

    fn at_clean(&self) -> AtClean {
        self.at_clean
    }
}

/// Returns a tensor with the shape and device of `like`, whose row `i` is `table[prompts[i]]`.
fn rows<B: Backend>(table: &[Vec<f32>], prompts: &[usize], like: &Tensor<B, 2>) -> Tensor<B, 2> {
    let data: Vec<f32> = prompts.iter().flat_map(|&p| table[p].iter().copied()).collect();
    Tensor::from_data(TensorData::new(data, like.dims()), &like.device())
}
