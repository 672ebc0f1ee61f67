//! Loops of the backward pass over float32 rows, in the style of [`simd`].
//!
//! [`simd`]: crate::kernels::simd

use pulp::Arch;

use crate::kernels::queries::{Queries, ScoreRule, first_seen};
use crate::kernels::simd::{Attended, StridedRows, dot, erf, exp, sum};

/// An activation function with its derivative.
#[derive(Debug, Clone, Copy)]
pub(super) enum Curve {
    Gelu,
    GeluNew,
    Silu,
}

impl Curve {
    /// Multiplies gradients by the derivatives at `x`, in place.
    pub(super) fn times_slope(self, x: &[f32], gradients: &mut [f32]) {
        match self {
            Curve::Gelu => Arch::new().dispatch(|| times(x, gradients, gelu_slope)),
            Curve::GeluNew => Arch::new().dispatch(|| times(x, gradients, gelu_new_slope)),
            Curve::Silu => Arch::new().dispatch(|| times(x, gradients, silu_slope)),
        }
    }
}

#[inline(always)]
fn times(x: &[f32], gradients: &mut [f32], slope: impl Fn(f32) -> f32) {
    for (gradient, x) in gradients.iter_mut().zip(x) {
        *gradient *= slope(*x);
    }
}

/// The derivative of `x Φ(x)`: `Φ(x) + x φ(x)`, with the normal distribution's `Φ` and density `φ`.
#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    /// `1 / sqrt(2 pi)`.
    const DENSITY: f32 = 0.398_942_3;
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * DENSITY * exp(-0.5 * x * x)
}

/// The derivative of `x / 2 (1 + tanh u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`. With `s` the
/// logistic function, `1 + tanh u` is `2 s(2u)`, and the derivative of `tanh u` is
/// `4 s(2u) s(-2u)`. Unlike `1 - tanh^2 u`, this keeps its precision far from 0.
#[inline(always)]
fn gelu_new_slope(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let square = x * x;
    let [s, bend] = logistic(2.0 * SQRT_2_OVER_PI * (x + 0.044_715 * x * square));
    let slope_of_u = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * square);
    // Where `slope_of_u` overflows, `bend` is 0.
    let bent = if bend == 0.0 { 0.0 } else { 2.0 * x * bend * slope_of_u };
    s + bent
}

/// The derivative of `x s(x)` with the logistic function `s`: `s(x) + x s(x) s(-x)`.
#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let [s, bend] = logistic(x);
    s + x * bend
}

/// Returns `s(x) = 1 / (1 + exp(-x))` and its derivative `s(x) s(-x)`.
#[inline(always)]
fn logistic(x: f32) -> [f32; 2] {
    let small = exp(-x.abs());
    let large_side = 1.0 / (1.0 + small);
    let small_side = small * large_side;
    [if x >= 0.0 { large_side } else { small_side }, large_side * small_side]
}

/// Writes the gradient of a norm's input to `gradients`, which hold that of the norm's output, for
/// a scale held constant: `g / scale`, minus its mean if the norm centers.
pub(super) fn normalize(scale: &[f32], d: usize, centers: bool, gradients: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (row, scale) in gradients.chunks_exact_mut(d).zip(scale) {
            let mean = if centers { sum(row, |g| g) / d as f32 } else { 0.0 };
            row.iter_mut().for_each(|g| *g = (*g - mean) / scale);
        }
    });
}

/// Writes the gradients of a norm's scales: minus the sum of `gradient * output`, over the scale.
pub(super) fn scale_of_quotient(output: &[f32], gradients: &[f32], scale: &[f32], d: usize, out: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (((y, g), scale), out) in output.chunks_exact(d).zip(gradients.chunks_exact(d)).zip(scale).zip(out) {
            *out = -dot(y, g) / scale;
        }
    });
}

/// Writes the gradient of a norm's input for the gradients of its scales:
/// `gradient * x / (d * scale)`, with `x` minus its mean if the norm centers.
pub(super) fn norm_scale(x: &[f32], d: usize, centers: bool, [scale, gradients]: [&[f32]; 2], out: &mut [f32]) {
    Arch::new().dispatch(|| {
        let rows = x.chunks_exact(d).zip(out.chunks_exact_mut(d));
        for ((row, out), (scale, gradient)) in rows.zip(scale.iter().zip(gradients)) {
            let mean = if centers { sum(row, |x| x) / d as f32 } else { 0.0 };
            let factor = gradient / (d as f32 * scale);
            for (out, x) in out.iter_mut().zip(row) {
                *out = (x - mean) * factor;
            }
        }
    });
}

/// Replaces gradients of patterns, rows of `width` keys, by those of the scores: `p (g - sum p g)`.
pub(super) fn softmax(patterns: &[f32], width: usize, gradients: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (pattern, row) in patterns.chunks_exact(width).zip(gradients.chunks_exact_mut(width)) {
            let mean = dot(pattern, row);
            row.iter_mut().zip(pattern).for_each(|(g, p)| *g = p * (*g - mean));
        }
    });
}

/// The shape of attention in one row of the batch: heads, queries, and all keys.
pub(super) type Shape = [usize; 3];

/// Replaces gradients of one row's scores `[head, query, key]` by those of the products of queries
/// and keys, for the keys that a query attends to. The others get 0. `capped` holds the scores if
/// the rule caps them.
pub(super) fn products(
    row: usize,
    [heads, n_queries, n_keys]: Shape,
    queries: &Queries,
    rule: ScoreRule,
    capped: Option<&[f32]>,
    gradients: &mut [f32],
) {
    let divisor = rule.divisor as f32;
    Arch::new().dispatch(|| {
        for (i, gradients) in gradients.chunks_exact_mut(n_keys).take(heads * n_queries).enumerate() {
            let position = queries.position(row, i % n_queries);
            let end = (position + 1).min(n_keys);
            let start = first_seen(position, rule.window).min(end);
            if let (Some(cap), Some(scores)) = (rule.cap, capped) {
                let cap = cap as f32;
                let scores = &scores[i * n_keys..][start..end];
                for (gradient, score) in gradients[start..end].iter_mut().zip(scores) {
                    let bent = score / cap;
                    *gradient *= 1.0 - bent * bent;
                }
            }
            gradients[start..end].iter_mut().for_each(|gradient| *gradient /= divisor);
            gradients[..start].fill(0.0);
            gradients[end..].fill(0.0);
        }
    });
}

/// Adds vectors of keys, weighted by `weights` `[head, query, key]`, to the vectors of their
/// queries in one row, `out` `[query, head, d_head]`.
pub(super) fn to_queries(weights: &[f32], keys: Attended<'_>, [heads, n_queries, n_keys]: Shape, out: &mut [f32]) {
    let d_head = keys.own.d_head;
    Arch::new().dispatch(|| {
        for (i, weights) in weights.chunks_exact(n_keys).enumerate() {
            let (head, query) = (i / n_queries, i % n_queries);
            let out = &mut out[(query * heads + head) * d_head..][..d_head];
            for (key, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                add(out, *weight, keys.at(key, head));
            }
        }
    });
}

/// Adds vectors of queries, weighted by `weights` `[head, query, key]`, to the vectors of the row's
/// own keys, `out` `[own, key/value head, d_head]`. `keys` is the row's keys without the earlier
/// ones.
pub(super) fn to_keys(
    weights: &[f32],
    vectors: StridedRows<'_>,
    keys: Sharing,
    [heads, n_queries, n_keys]: Shape,
    out: &mut [f32],
) {
    let d_head = vectors.d_head;
    let kv_heads = heads / keys.sharing;
    Arch::new().dispatch(|| {
        for (i, weights) in weights.chunks_exact(n_keys).enumerate() {
            let (head, query) = (i / n_queries, i % n_queries);
            let vector = vectors.at(keys.row, query, head);
            for (own, weight) in weights[keys.n_earlier..].iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                let at = (own * kv_heads + head / keys.sharing) * d_head;
                add(&mut out[at..][..d_head], *weight, vector);
            }
        }
    });
}

/// How one row's queries share keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    pub(super) row: usize,
    /// The number of keys before the row's own.
    pub(super) n_earlier: usize,
    /// The number of heads that share a key/value head.
    pub(super) sharing: usize,
}

/// Writes the gradients of one row's patterns `[head, query, key]`: the products of the gradients
/// of mixed values with the values.
pub(super) fn patterns(of_mixed: StridedRows<'_>, values: Attended<'_>, [heads, n, n_keys]: Shape, out: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (i, out) in out.chunks_exact_mut(n_keys).take(heads * n).enumerate() {
            let (head, query) = (i / n, i % n);
            let gradient = of_mixed.at(values.row, query, head);
            for (key, out) in out.iter_mut().enumerate() {
                *out = dot(gradient, values.at(key, head));
            }
        }
    });
}

#[inline(always)]
fn add(out: &mut [f32], weight: f32, vector: &[f32]) {
    for (out, x) in out.iter_mut().zip(vector) {
        *out += weight * x;
    }
}
