//! The change of an attention pattern when a single key is replaced, in closed form.

use burn::tensor::{Int, Tensor, backend::Backend};

/// Returns the first-order effect of replacing one key alone, for each key: the change of the
/// pattern times the gradient at the pattern, summed over queries, `[batch, head, key]`.
///
/// All arguments are `[batch, head, query, key]`: the scores of the base run, the scores with the
/// keys of the source run, and the gradient at the pattern. Keys that a query does not see have the
/// score `-inf`.
///
/// If key `t` is replaced, the weights of all other keys of a row keep their ratios. With `p` the
/// weight of `t`, `p'` its new weight, `g` the gradient at `t` and `r` the mean gradient of the
/// other keys, weighted by the row without `t`, the effect is `(p' - p) (g - r)` (Kramár et al.
/// 2024). The new weight is `sigmoid(logit(p) + change of the score)`.
///
/// `1 - p` loses all its digits where `p` is near 1. At most one key of a row has more than half of
/// the weight. For the key with the largest score, `logit(p)` and `r` are therefore computed from
/// the scores of the other keys, in log space.
pub(super) fn effects<B: Backend>(
    scores: Tensor<B, 4>,
    replaced: Tensor<B, 4>,
    gradients: Tensor<B, 4>,
) -> Tensor<B, 3> {
    let [batch, heads, _, keys] = scores.dims();
    let hidden = scores.clone().equal_elem(f32::NEG_INFINITY);
    let positions = Tensor::<B, 1, Int>::arange(0..keys as i64, &scores.device()).reshape([1, 1, 1, keys]);
    let shape = scores.shape();
    let is_largest = positions.expand(shape.clone()).equal(scores.clone().argmax(3).expand(shape.clone()));

    let row = Row::new(scores.clone(), gradients.clone());
    let others = Row::new(scores.clone().mask_fill(is_largest.clone(), f32::NEG_INFINITY), gradients.clone());
    // Everywhere but at the largest score, `rest` is at least one half.
    let rest = row.weights.clone().neg() + 1.0;
    let odds = scores.clone() - row.log_sum - rest.clone().log();
    let odds_of_largest = scores.clone() - others.log_sum;
    let mean_of_rest = (row.mean - row.weights * gradients.clone()) / rest;
    let odds = odds.mask_where(is_largest.clone(), odds_of_largest);
    let mean_of_rest = mean_of_rest.mask_where(is_largest, others.mean.expand(shape));

    let moved = (replaced - scores).mask_fill(hidden.clone(), 0.0);
    let change = sigmoid(odds.clone() + moved) - sigmoid(odds);
    let effects = (change * (gradients - mean_of_rest)).mask_fill(hidden, 0.0);
    effects.sum_dim(2).reshape([batch, heads, keys])
}

/// The softmax of rows of scores, and the mean of the gradients that it weights.
struct Row<B: Backend> {
    /// `[batch, head, query, key]`.
    weights: Tensor<B, 4>,
    /// The logarithm of the sum of exponentials, `[batch, head, query, 1]`; `-inf` for a row
    /// without keys.
    log_sum: Tensor<B, 4>,
    /// `[batch, head, query, 1]`; 0 for a row without keys.
    mean: Tensor<B, 4>,
}

impl<B: Backend> Row<B> {
    fn new(scores: Tensor<B, 4>, gradients: Tensor<B, 4>) -> Self {
        let largest = scores.clone().max_dim(3);
        let empty = largest.clone().equal_elem(f32::NEG_INFINITY);
        let largest = largest.mask_fill(empty.clone(), 0.0);
        let exponentials = (scores - largest.clone()).exp();
        let sum = exponentials.clone().sum_dim(3);
        // The largest exponential is 1.
        let weights = exponentials / sum.clone().mask_fill(empty, 1.0);
        let mean = (weights.clone() * gradients).sum_dim(3);
        Self { weights, log_sum: sum.log() + largest, mean }
    }
}

fn sigmoid<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    (x.neg().exp() + 1.0).recip()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;

    fn softmax(scores: &[f64]) -> Vec<f64> {
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        exponentials.into_iter().map(|e| e / sum).collect()
    }

    /// Returns the effect of each key of one row, in float64, with one softmax for each key.
    fn literal(scores: &[f64], replaced: &[f64], gradients: &[f64]) -> Vec<f64> {
        let base = softmax(scores);
        let of_key = |key: usize| {
            let mut scores = scores.to_vec();
            scores[key] = replaced[key];
            let patched = softmax(&scores);
            patched.iter().zip(&base).zip(gradients).map(|((new, old), gradient)| (new - old) * gradient).sum()
        };
        (0..scores.len()).map(of_key).collect()
    }

    fn found(scores: &[f64], replaced: &[f64], gradients: &[f64]) -> Vec<f32> {
        let row = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            let shape = [1, 1, 1, values.len()];
            Tensor::<Flex, 4>::from_data(TensorData::new(values, shape), &Default::default())
        };
        effects(row(scores), row(replaced), row(gradients)).into_data().to_vec().unwrap()
    }

    #[test]
    fn effects_keep_their_digits_where_one_key_has_all_the_weight() {
        let gradients = [1.0, -2.0, 3.0, 0.5];
        for largest in [0.0, 2.0, 12.0, 20.0, 40.0, 90.0] {
            for moved in [-95.0, -41.0, -20.0, -3.0, 1.0, 60.0] {
                let scores = [0.5, largest, -1.0, 0.25];
                let replaced = [0.5 + moved / 2.0, largest + moved, -1.0 - moved, 1.0];
                let (found, expected) =
                    (found(&scores, &replaced, &gradients), literal(&scores, &replaced, &gradients));
                for (found, expected) in found.iter().zip(&expected) {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error < 3e-6, "{largest} {moved}: {found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_query_that_sees_one_key_does_not_move() {
        let hidden = f64::NEG_INFINITY;
        assert_eq!(found(&[hidden, 3.0, hidden], &[hidden, -8.0, hidden], &[1.0, 5.0, 2.0]), [0.0; 3]);
    }

    #[test]
    fn an_equal_key_changes_nothing() {
        let scores = [0.3, 7.1, -2.0, 7.1];
        assert_eq!(found(&scores, &scores, &[1.0, 5.0, 2.0, -3.0]), [0.0; 4]);
    }
}
