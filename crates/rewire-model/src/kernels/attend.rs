//! Attention that holds the patterns of one block of queries at a time.
//!
//! The scores and patterns of a whole prompt are `[batch, head, pos, pos]`: 200 MB per row and
//! layer for 12 heads and 2,048 positions. If no hook sees them, blocks of queries attend one after
//! the other, each to the keys up to its last query. The sums are those of whole patterns, in the
//! same order. On flex, the results are therefore equal bit for bit.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, backend::Backend};

use crate::kernels::blocks::{AttentionInputs, Blocks};
use crate::kernels::queries::{Queries, ScoreRule};
use crate::kernels::surrogate::with_backward_of;
#[cfg(feature = "flex")]
use crate::kernels::{flex, gradients_attention, tracked};
use crate::kernels::{mix, scores};

/// The number of queries whose scores and patterns are held at once, in runs whose hooks see
/// neither. Runs of no more positions compute whole patterns.
pub const QUERY_BLOCK: usize = 128;

/// Returns values mixed by attention, `[batch, query, head, d_head]`, without holding whole
/// patterns.
pub(crate) fn attend<B: Backend>(inputs: AttentionInputs<B>, queries: &Queries, rule: ScoreRule) -> Tensor<B, 4> {
    attend_by(QUERY_BLOCK, inputs, queries, rule)
}

/// As [`attend`], with blocks of `size` queries.
fn attend_by<B: Backend>(size: usize, inputs: AttentionInputs<B>, queries: &Queries, rule: ScoreRule) -> Tensor<B, 4> {
    let n = inputs.q.dims()[1];
    let blocks = match *queries {
        Queries::From(first) if n > size => Blocks { size, first, window: rule.window },
        _ => return attend_whole(size, inputs, queries, rule),
    };
    #[cfg(feature = "flex")]
    if let Some(z) = flex::attend(&inputs, blocks, rule).or_else(|| tracked::attend(&inputs, blocks, rule)) {
        return z;
    }
    let parts = blocks.of(n).map(|block| attend_whole(size, inputs.of(&block), &block.at, rule));
    Tensor::cat(parts.collect(), 1)
}

/// Returns values mixed by whole patterns.
fn attend_whole<B: Backend>(
    size: usize,
    inputs: AttentionInputs<B>,
    queries: &Queries,
    rule: ScoreRule,
) -> Tensor<B, 4> {
    let AttentionInputs { q, k, v, earlier } = inputs;
    let (keys, values) = earlier.map(|[keys, values]| (keys, values)).unzip();
    let scores = scores(q, k, keys, queries, rule);
    mix(pattern_by(size, scores, rule.softmax_temperature), v, values)
}

/// Returns the pattern of scores `[batch, head, query, key]`, their softmax over keys.
pub(crate) fn pattern<B: Backend>(scores: Tensor<B, 4>, rule: ScoreRule) -> Tensor<B, 4> {
    pattern_by(QUERY_BLOCK, scores, rule.softmax_temperature)
}

/// As [`pattern`], for blocks of `size` queries, with the softmax at `temperature` in the backward
/// pass.
fn pattern_by<B: Backend>(size: usize, scores: Tensor<B, 4>, temperature: f64) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if let Some(pattern) = gradients_attention::pattern(&scores, temperature, |scores| softmax_by(size, scores)) {
        return pattern;
    }
    if temperature == 1.0 {
        return softmax_by(size, scores);
    }
    // The softmax of `scores / temperature` has the derivative `(diag(s) - s sᵀ) / temperature`.
    let other = softmax(scores.clone() / temperature, 3) * temperature;
    with_backward_of(softmax_by(size, scores.detach()), other)
}

/// Returns the softmax over keys of scores `[batch, head, query, key]`. For more than `size`
/// queries, it uses the exponential function of the blocks, to round as the blocks do.
fn softmax_by<B: Backend>(size: usize, scores: Tensor<B, 4>) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    let scores = match scores.dims()[2] > size {
        true => match flex::softmax(scores) {
            Ok(done) => return done,
            Err(scores) => scores,
        },
        false => scores,
    };
    #[cfg(not(feature = "flex"))]
    let _ = size;
    softmax(scores, 3)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Distribution;

    use super::*;

    type Tracked = Autodiff<Flex>;

    const PLAIN: ScoreRule = ScoreRule { divisor: 4.0, cap: None, window: None, softmax_temperature: 1.0 };

    /// Sharing of heads, rules and numbers of earlier positions that together reach every branch.
    fn cases() -> Vec<(usize, ScoreRule, usize)> {
        let rules = [PLAIN, ScoreRule { cap: Some(0.5), ..PLAIN }, ScoreRule { window: Some(3), ..PLAIN }];
        let wide = ScoreRule { window: Some(19), cap: Some(2.0), softmax_temperature: 2.0, ..PLAIN };
        rules.into_iter().chain([wide]).flat_map(|rule| [(4, rule, 0), (2, rule, 5), (1, rule, 21)]).collect()
    }

    fn random(shape: [usize; 4]) -> Tensor<Flex, 4> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
    }

    /// Returns the inputs of 4 heads with 20 numbers each: `n` queries in each of 4 rows, after
    /// `earlier` positions of 2 prompts.
    fn inputs(kv_heads: usize, n: usize, earlier: usize) -> AttentionInputs<Flex> {
        let before = || random([2, earlier, kv_heads, 20]);
        AttentionInputs {
            q: random([4, n, 4, 20]),
            k: random([4, n, kv_heads, 20]),
            v: random([4, n, kv_heads, 20]),
            earlier: (earlier > 0).then(|| [before(), before()]),
        }
    }

    fn numbers<B: Backend>(x: &Tensor<B, 4>) -> Vec<f32> {
        x.to_data().to_vec().unwrap()
    }

    fn assert_near(found: &Tensor<Flex, 4>, expected: &Tensor<Flex, 4>) {
        assert_eq!(found.dims(), expected.dims());
        for (a, b) in numbers(found).into_iter().zip(numbers(expected)) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} is not {b}");
        }
    }

    #[test]
    fn blocks_equal_recorded_patterns_bit_for_bit() {
        for (kv_heads, rule, earlier) in cases() {
            let inputs = inputs(kv_heads, 37, earlier);
            let queries = Queries::From(earlier);
            for size in [1, 2, 7, 16, 36] {
                let whole = attend_whole(size, inputs.clone(), &queries, rule);
                let found = attend_by(size, inputs.clone(), &queries, rule);
                assert_eq!(numbers(&found), numbers(&whole), "blocks of {size}, {rule:?}, {earlier} earlier");
            }
            let unblocked = attend_by(37, inputs.clone(), &queries, rule);
            assert_near(&attend_by(7, inputs, &queries, rule), &unblocked);
        }
    }

    #[test]
    fn plain_blocks_match_whole_patterns() {
        for (kv_heads, rule, earlier) in cases() {
            let inputs = inputs(kv_heads, 37, earlier);
            let blocks = Blocks { size: 7, first: earlier, window: rule.window };
            let part = |block| attend_whole(37, inputs.of(&block), &block.at, rule);
            let found = Tensor::cat(blocks.of(37).map(part).collect(), 1);
            assert_near(&found, &attend_whole(37, inputs, &Queries::From(earlier), rule));
        }
    }

    /// Returns the mixed values and the gradients of a loss that bends them, with respect to
    /// queries, keys, values, and the earlier keys and values.
    fn values_and_gradients(
        size: usize,
        inputs: &AttentionInputs<Flex>,
        queries: &Queries,
        rule: ScoreRule,
    ) -> Vec<Tensor<Flex, 4>> {
        let leaf = |x: &Tensor<Flex, 4>| Tensor::<Tracked, 4>::from_inner(x.clone()).require_grad();
        let inputs = AttentionInputs {
            q: leaf(&inputs.q),
            k: leaf(&inputs.k),
            v: leaf(&inputs.v),
            earlier: inputs.earlier.as_ref().map(|earlier| earlier.each_ref().map(leaf)),
        };
        let z = attend_by(size, inputs.clone(), queries, rule);
        let gradients = (z.clone() * 3.0).sin().sum().backward();
        let AttentionInputs { q, k, v, earlier } = inputs;
        let leaves = [q, k, v].into_iter().chain(earlier.into_iter().flatten());
        let of_leaves = leaves.map(|leaf| leaf.grad(&gradients).expect("a gradient for each input"));
        [z.inner()].into_iter().chain(of_leaves).collect()
    }

    #[test]
    fn gradients_of_blocks_match_those_of_whole_patterns() {
        for (kv_heads, rule, earlier) in cases() {
            let inputs = inputs(kv_heads, 13, earlier);
            let queries = Queries::From(earlier);
            let whole = values_and_gradients(13, &inputs, &queries, rule);
            for size in [1, 5, 12] {
                let found = values_and_gradients(size, &inputs, &queries, rule);
                assert_eq!(found.len(), whole.len());
                found.iter().zip(&whole).for_each(|(found, whole)| assert_near(found, whole));
            }
        }
    }

    #[test]
    fn untracked_inputs_get_no_gradient() {
        let AttentionInputs { q, k, v, .. } = inputs(2, 9, 0);
        let [k, v] = [k, v].map(Tensor::<Tracked, 4>::from_inner);
        let q = Tensor::<Tracked, 4>::from_inner(q);
        let of = |q: Tensor<Tracked, 4>| {
            let inputs = AttentionInputs { q, k: k.clone(), v: v.clone(), earlier: None };
            attend_by(4, inputs, &Queries::From(0), PLAIN)
        };
        assert!(!of(q.clone()).is_require_grad());
        let q = q.require_grad();
        let gradients = of(q.clone()).sum().backward();
        assert!(q.grad(&gradients).is_some());
        assert!(k.grad(&gradients).is_none());
    }

    #[test]
    fn weights_of_a_row_sum_to_one_and_hidden_keys_get_none() {
        let scores = random([1, 1, 3, 37]) * 30.0;
        let hidden = [0..1, 0..1, 1..2, 5..37];
        let scores = scores.slice_fill(hidden.clone(), f32::NEG_INFINITY);
        let found = softmax_by(2, scores.clone());
        assert_near(&found, &softmax(scores, 3));
        assert!(numbers(&found.slice(hidden)).iter().all(|weight| *weight == 0.0));
    }
}
