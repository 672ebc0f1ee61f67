//! Metrics that are weighted sums of logits, such as the logit difference.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::metrics::metric::{Metric, Reads, UNIT_ROUNDOFF};
use crate::pairs::PromptPairs;

/// A weighted sum of logits at one position of each prompt.
///
/// # Example
/// The logit of one token minus the mean logit of three others:
/// ```
/// use rewire_tasks::{LinearMetric, Metric};
///
/// let weights = vec![vec![(7, 1.0), (3, -1.0 / 3.0), (4, -1.0 / 3.0), (5, -1.0 / 3.0)]];
/// let metric = LinearMetric::new("margin", vec![12], weights)?; // prompt 0, at position 12
/// assert_eq!(metric.reads().columns, Some(vec![3, 4, 5, 7]));
/// # Ok::<(), rewire_tasks::LinearMetricError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LinearMetric {
    name: &'static str,
    positions: Vec<usize>,
    /// The tokens that have a weight in any prompt, ascending.
    columns: Vec<usize>,
    /// Indices into `columns` and their weights, per prompt. All other weights are 0.
    weights: Vec<Vec<(usize, f32)>>,
}

/// Why weights do not make a metric.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinearMetricError {
    /// The numbers of positions and of lists of weights differ.
    #[error(
        "there are positions for {positions} prompts and weights for {weights}; give one position and one list of weights per prompt"
    )]
    UnequalPrompts {
        /// Number of positions.
        positions: usize,
        /// Number of lists of weights.
        weights: usize,
    },
    /// A weight is not finite.
    #[error("the weight of token {token} in prompt {prompt} (counted from 0) is {weight}; weights must be finite")]
    NotFinite {
        /// The prompt.
        prompt: usize,
        /// The token.
        token: u32,
        /// Its weight.
        weight: f32,
    },
}

impl LinearMetric {
    /// Creates the metric: the sum over `weights[prompt]` of weight times the token's logit at
    /// `positions[prompt]`. The weights of a token that is listed twice are added.
    ///
    /// # Errors
    /// [`LinearMetricError`] if there are not as many lists of weights as positions, or if a weight
    /// is not finite.
    pub fn new(
        name: &'static str,
        positions: Vec<usize>,
        weights: Vec<Vec<(u32, f32)>>,
    ) -> Result<Self, LinearMetricError> {
        if positions.len() != weights.len() {
            return Err(LinearMetricError::UnequalPrompts { positions: positions.len(), weights: weights.len() });
        }
        for (prompt, weights) in weights.iter().enumerate() {
            if let Some(&(token, weight)) = weights.iter().find(|(_, weight)| !weight.is_finite()) {
                return Err(LinearMetricError::NotFinite { prompt, token, weight });
            }
        }
        Ok(Self::of_finite(name, positions, &weights))
    }

    fn of_finite(name: &'static str, positions: Vec<usize>, weights: &[Vec<(u32, f32)>]) -> Self {
        let mut columns: Vec<usize> = weights.iter().flatten().map(|&(token, _)| token as usize).collect();
        columns.sort_unstable();
        columns.dedup();
        let of_prompt = |prompt: &Vec<(u32, f32)>| {
            let mut sums: BTreeMap<usize, f32> = BTreeMap::new();
            for &(token, weight) in prompt {
                if let Ok(column) = columns.binary_search(&(token as usize)) {
                    *sums.entry(column).or_default() += weight;
                }
            }
            sums.into_iter().collect()
        };
        let weights = weights.iter().map(of_prompt).collect();
        Self { name, positions, columns, weights }
    }
}

impl Metric for LinearMetric {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.positions.clone(), columns: Some(self.columns.clone()) }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = weights(&self.weights, prompts, &logits);
        (logits * weights).sum_dim(1).reshape([prompts.len()])
    }

    /// Bounds the rounding error. Each product and each partial sum is rounded once, which gives at
    /// most `columns + 1` times the unit roundoff, times the sum of the terms' absolute values.
    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let weights = weights(&self.weights, prompts, &logits);
        let operations = (self.columns.len() + 1) as f32;
        (logits * weights).abs().sum_dim(1).reshape([prompts.len()]) * (operations * UNIT_ROUNDOFF)
    }
}

/// Mean logit of the answers minus mean logit of the wrong answers, at END.
///
/// Each mean is over its own set, so that sets of unequal sizes weigh the same: with answers `A`
/// and wrong answers `W`, the metric is
/// `sum(logit of a in A) / |A| - sum(logit of w in W) / |W|`. It does not change if a constant is
/// added to all logits. A token that a set lists twice counts twice.
#[derive(Debug, Clone)]
pub struct LogitDiff(LinearMetric);

impl LogitDiff {
    /// Creates the metric for these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        let weigh = |tokens: &[u32], sign: f32| {
            let weight = sign / tokens.len() as f32;
            tokens.iter().map(|&token| (token, weight)).collect::<Vec<_>>()
        };
        let of_pair = pairs.pairs().iter().map(|p| [weigh(&p.answers, 1.0), weigh(&p.wrong_answers, -1.0)].concat());
        Self(LinearMetric::of_finite("logit-diff", pairs.ends(), &of_pair.collect::<Vec<_>>()))
    }

    /// Reads the logits at these positions, one per prompt, instead of at END.
    #[must_use]
    pub fn at(self, positions: Vec<usize>) -> Self {
        Self(LinearMetric { positions, ..self.0 })
    }
}

impl Metric for LogitDiff {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn reads(&self) -> Reads {
        self.0.reads()
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        self.0.evaluate(logits, prompts)
    }

    fn rounding<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        self.0.rounding(logits, prompts)
    }
}

/// Returns the weights of each row's prompt, `[row, column]`. `table` lists columns and their
/// weights per prompt; all other weights are 0.
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
