//! Numbers a prompt from logits.

use std::collections::BTreeMap;

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::pairs::PromptPairs;

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
const UNIT_ROUNDOFF: f32 = f32::EPSILON / 2.0;

/// Mean logit of the answers less mean logit of the wrong answers, at END.
#[derive(Debug, Clone)]
pub struct LogitDiff {
    ends: Vec<usize>,
    columns: Vec<usize>,
    /// Per prompt, columns and their weights; those of all other columns are 0.
    weights: Vec<Vec<(usize, f32)>>,
}

impl LogitDiff {
    /// The logit difference of these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        let all = pairs.pairs().iter().flat_map(|p| p.answers.iter().chain(&p.wrong_answers));
        let mut columns: Vec<usize> = all.map(|&t| t as usize).collect();
        columns.sort_unstable();
        columns.dedup();
        let weigh = |weights: &mut BTreeMap<usize, f32>, tokens: &[u32], sign: f32| {
            for &token in tokens {
                if let Ok(column) = columns.binary_search(&(token as usize)) {
                    *weights.entry(column).or_default() += sign / tokens.len() as f32;
                }
            }
        };
        let weights = pairs.pairs().iter().map(|p| {
            let mut weights = BTreeMap::new();
            weigh(&mut weights, &p.answers, 1.0);
            weigh(&mut weights, &p.wrong_answers, -1.0);
            weights.into_iter().collect()
        });
        Self { ends: pairs.ends(), weights: weights.collect(), columns }
    }
}

impl Metric for LogitDiff {
    fn name(&self) -> &'static str {
        "logit-diff"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.ends.clone(), columns: Some(self.columns.clone()) }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = weights(&self.weights, prompts, &logits);
        (logits * weights).sum_dim(1).reshape([prompts.len()])
    }

    /// One rounding of each product, and one of each partial sum: at most `columns + 1` times the
    /// unit roundoff of the terms' sizes.
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = weights(&self.weights, prompts, &logits);
        let operations = (self.columns.len() + 1) as f32;
        (logits * weights).abs().sum_dim(1).reshape([prompts.len()]) * (operations * UNIT_ROUNDOFF)
    }
}

/// Probability that the next token is one of the answers, at END.
#[derive(Debug, Clone)]
pub struct Probability {
    ends: Vec<usize>,
    answers: Vec<Vec<u32>>,
}

impl Probability {
    /// The answers' probability for these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        Self { ends: pairs.ends(), answers: pairs.pairs().iter().map(|p| p.answers.clone()).collect() }
    }
}

impl Metric for Probability {
    fn name(&self) -> &'static str {
        "probability"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.ends.clone(), columns: None }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = answer_indicator(&self.answers, prompts, &logits);
        (softmax(logits, 1) * weights).sum_dim(1).reshape([prompts.len()])
    }

    /// A probability `exp x / sum exp x`, with `x` the logit less the largest, is off by `u (|x| +
    /// 2)` of itself for its exponential, by the mean of the same over all columns for their sum,
    /// and by the rounding of that sum (see [`KlDivergence`]).
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let of_sum = (logits.dims()[1] as f32).sqrt();
        let weights = answer_indicator(&self.answers, prompts, &logits);
        let probabilities = softmax(logits.clone(), 1);
        let of_exponential = (logits.clone() - logits.max_dim(1)).abs() + 2.0;
        let of_all = (probabilities.clone() * of_exponential.clone()).sum_dim(1);
        let shares = (of_exponential + of_all + of_sum) * UNIT_ROUNDOFF;
        (probabilities * weights * shares).sum_dim(1).reshape([prompts.len()])
    }
}

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

/// 1 where the likeliest next token at END is one of the answers, else 0; NaN where a logit is not
/// finite. Its gradient is 0 wherever it exists, so methods that need gradients refuse it.
#[derive(Debug, Clone)]
pub struct Accuracy {
    ends: Vec<usize>,
    answers: Vec<Vec<u32>>,
}

impl Accuracy {
    /// The accuracy on these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        let Probability { ends, answers } = Probability::new(pairs);
        Self { ends, answers }
    }
}

impl Metric for Accuracy {
    fn name(&self) -> &'static str {
        "accuracy"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.ends.clone(), columns: None }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = answer_indicator(&self.answers, prompts, &logits);
        // A row with a logit that is not finite has no likeliest token.
        let nan_or_zero = (logits.clone().detach() * 0.0).sum_dim(1);
        let chosen = logits.argmax(1); // [row, 1]
        (weights.gather(1, chosen) + nan_or_zero).reshape([prompts.len()])
    }

    fn is_differentiable(&self) -> bool {
        false
    }
}

/// Any of the metrics here, chosen at run time.
#[derive(Debug, Clone)]
pub enum BuiltinMetric {
    /// See [`LogitDiff`].
    LogitDiff(LogitDiff),
    /// See [`Probability`].
    Probability(Probability),
    /// See [`KlDivergence`].
    KlDivergence(KlDivergence),
    /// See [`Accuracy`].
    Accuracy(Accuracy),
}

impl Metric for BuiltinMetric {
    fn name(&self) -> &'static str {
        match self {
            BuiltinMetric::LogitDiff(m) => m.name(),
            BuiltinMetric::Probability(m) => m.name(),
            BuiltinMetric::KlDivergence(m) => m.name(),
            BuiltinMetric::Accuracy(m) => m.name(),
        }
    }

    fn reads(&self) -> Reads {
        match self {
            BuiltinMetric::LogitDiff(m) => m.reads(),
            BuiltinMetric::Probability(m) => m.reads(),
            BuiltinMetric::KlDivergence(m) => m.reads(),
            BuiltinMetric::Accuracy(m) => m.reads(),
        }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        match self {
            BuiltinMetric::LogitDiff(m) => m.evaluate(logits, prompts),
            BuiltinMetric::Probability(m) => m.evaluate(logits, prompts),
            BuiltinMetric::KlDivergence(m) => m.evaluate(logits, prompts),
            BuiltinMetric::Accuracy(m) => m.evaluate(logits, prompts),
        }
    }

    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        match self {
            BuiltinMetric::LogitDiff(m) => m.rounding(logits, prompts),
            BuiltinMetric::Probability(m) => m.rounding(logits, prompts),
            BuiltinMetric::KlDivergence(m) => m.rounding(logits, prompts),
            BuiltinMetric::Accuracy(m) => m.rounding(logits, prompts),
        }
    }

    fn is_differentiable(&self) -> bool {
        match self {
            BuiltinMetric::LogitDiff(m) => m.is_differentiable(),
            BuiltinMetric::Probability(m) => m.is_differentiable(),
            BuiltinMetric::KlDivergence(m) => m.is_differentiable(),
            BuiltinMetric::Accuracy(m) => m.is_differentiable(),
        }
    }

    fn at_clean(&self) -> AtClean {
        match self {
            BuiltinMetric::LogitDiff(m) => m.at_clean(),
            BuiltinMetric::Probability(m) => m.at_clean(),
            BuiltinMetric::KlDivergence(m) => m.at_clean(),
            BuiltinMetric::Accuracy(m) => m.at_clean(),
        }
    }
}

/// The scale on which an effect is 0 for the run that is patched and of size 1 for the run patched from: a metric's batch
/// means on the clean and on the corrupted prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    clean: f64,
    corrupted: f64,
}

/// Baselines between which nothing can be scaled.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "the metric is {clean} on the clean prompts and {corrupted} on the corrupted ones: there is no difference to \
     normalise by; use an unnormalised metric (logit-diff)"
)]
pub struct NormalisationError {
    /// Mean over the clean prompts.
    pub clean: f64,
    /// Mean over the corrupted prompts.
    pub corrupted: f64,
}

impl Normalisation {
    /// From the two means.
    ///
    /// # Errors
    /// [`NormalisationError`] where they coincide to within float32, or are not finite.
    pub fn new(clean: f64, corrupted: f64) -> Result<Self, NormalisationError> {
        let distance = (clean - corrupted).abs();
        let noise = f64::from(f32::EPSILON) * 16.0 * clean.abs().max(corrupted.abs()).max(1e-6);
        match distance.is_finite() && distance > noise {
            true => Ok(Self { clean, corrupted }),
            false => Err(NormalisationError { clean, corrupted }),
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

/// `table[prompts[i]]` as row `i` of a tensor beside `like`.
fn rows<B: Backend>(table: &[Vec<f32>], prompts: &[usize], like: &Tensor<B, 2>) -> Tensor<B, 2> {
    let data: Vec<f32> = prompts.iter().flat_map(|&p| table[p].iter().copied()).collect();
    Tensor::from_data(TensorData::new(data, like.dims()), &like.device())
}

/// The weights of each row's prompt, `[row, column]`, from those of each prompt that are not 0.
fn weights<B: Backend>(table: &[Vec<(usize, f32)>], prompts: &[usize], like: &Tensor<B, 2>) -> Tensor<B, 2> {
    let [n_rows, columns] = like.dims();
    let mut data = vec![0.0; n_rows * columns];
    for (row, &prompt) in prompts.iter().enumerate() {
        for &(column, weight) in &table[prompt] {
            data[row * columns + column] = weight;
        }
    }
    Tensor::from_data(TensorData::new(data, [n_rows, columns]), &like.device())
}

/// 1 at the answers of each row's prompt, over the whole vocabulary.
fn answer_indicator<B: Backend>(answers: &[Vec<u32>], prompts: &[usize], like: &Tensor<B, 2>) -> Tensor<B, 2> {
    let [n_rows, d_vocab] = like.dims();
    let mut data = vec![0.0_f32; n_rows * d_vocab];
    for (row, &prompt) in prompts.iter().enumerate() {
        for &answer in &answers[prompt] {
            data[row * d_vocab + answer as usize] = 1.0;
        }
    }
    Tensor::from_data(TensorData::new(data, [n_rows, d_vocab]), &like.device())
}
