//! The divergence of the next-token distribution from a reference.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::metrics::metric::{AtClean, Metric, Reads, UNIT_ROUNDOFF};
use crate::pairs::PromptPairs;

/// Divergence KL(reference || run), in nats, of the next-token distributions at END.
#[derive(Debug, Clone)]
pub struct KlDivergence {
    ends: Vec<usize>,
    at_clean: AtClean,
    /// Per prompt, log-probabilities of the reference over the vocabulary.
    reference: Vec<Vec<f32>>,
}

impl KlDivergence {
    /// The divergence from the clean run, by its logits at END, one row over the whole vocabulary a
    /// prompt. At the clean run it is 0, its minimum, and has no gradient.
    #[must_use]
    pub fn new(pairs: &PromptPairs, clean_logits: &[Vec<f32>]) -> Self {
        Self { at_clean: AtClean::Stationary, ..Self::from_reference(pairs, clean_logits) }
    }

    /// The divergence from another reference than the clean run, by its logits as in
    /// [`new`](Self::new).
    #[must_use]
    pub fn from_reference(pairs: &PromptPairs, reference_logits: &[Vec<f32>]) -> Self {
        let reference = reference_logits.iter().map(|logits| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let log_sum = f64::from(max) + logits.iter().map(|l| f64::from(l - max).exp()).sum::<f64>().ln();
            logits.iter().map(|&l| (f64::from(l) - log_sum) as f32).collect()
        });
        Self { ends: pairs.ends(), at_clean: AtClean::Varies, reference: reference.collect() }
    }
}

impl Metric for KlDivergence {
    fn name(&self) -> &'static str {
        "kl"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.ends.clone(), columns: None }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let log_reference = rows(&self.reference, prompts, &logits);
        let difference = log_reference.clone() - log_softmax(logits, 1);
        (log_reference.exp() * difference).sum_dim(1).reshape([prompts.len()])
    }

    /// The divergence is `sum p (log p - log q)`, in which logarithms of sizes up to some tens
    /// cancel to a difference that may be millionths. With `u` the unit roundoff, `n` columns, `x`
    /// a run's logit less the largest and `q = exp x / sum exp x`:
    ///
    /// - a stored `log p` is rounded once, `u |log p|`, and its exponential is off by
    ///   `u (|log p| + 2)` of itself, which counts times the difference;
    /// - `x` and `log q` are rounded once each, `u (|x| + |log q|)`;
    /// - `log sum exp x` is off by the mean under q of what the exponentials are off by,
    ///   `u (|x| + 2)`, and by the rounding of the sum, which shifts every `log q` alike;
    /// - the last sum rounds `p |log p - log q|`.
    ///
    /// Roundings of a sum of n terms are taken for independent, so that they add up to `sqrt(n) u`
    /// of it (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019);
    /// the other terms are bounds.
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

/// `table[prompts[i]]` as row `i` of a tensor beside `like`.
fn rows<B: Backend>(table: &[Vec<f32>], prompts: &[usize], like: &Tensor<B, 2>) -> Tensor<B, 2> {
    let data: Vec<f32> = prompts.iter().flat_map(|&p| table[p].iter().copied()).collect();
    Tensor::from_data(TensorData::new(data, like.dims()), &like.device())
}
