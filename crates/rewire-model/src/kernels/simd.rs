//! Loops over float32 rows, which the compiler turns into the processor's widest instructions.
//!
//! Nothing here is generic. The code is compiled once, in this crate at this crate's optimization
//! level, instead of again in each crate that runs a model.

use pulp::Arch;

use crate::kernels::queries::{Queries, ScoreRule, first_seen};

/// The number of independent sums. They make the sum of a row parallel, with an order that is
/// always the same.
pub(super) const LANES: usize = 16;

#[inline(always)]
pub(super) fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += term(*x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += term(*x);
    }
    fold(lanes)
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Writes `sqrt(var + eps)` of each row of `x`, `d` wide, to `scale`.
pub(super) fn norm_scale(x: &[f32], d: usize, eps: f32, scale: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (row, scale) in x.chunks_exact(d).zip(scale) {
            let mean = sum(row, |x| x) / d as f32;
            *scale = (sum(row, |x| (x - mean) * (x - mean)) / d as f32 + eps).sqrt();
        }
    });
}

/// Writes `sqrt(mean of squares + eps)` of each row of `x`, `d` wide, to `scale`.
pub(super) fn rms_scale(x: &[f32], d: usize, eps: f32, scale: &mut [f32]) {
    Arch::new().dispatch(|| {
        for (row, scale) in x.chunks_exact(d).zip(scale) {
            *scale = (sum(row, |x| x * x) / d as f32 + eps).sqrt();
        }
    });
}

/// Writes each row of `x`, centered and divided by its scale, to `out`.
pub(super) fn normalize(x: &[f32], d: usize, scale: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(|| {
        for ((row, scale), out) in x.chunks_exact(d).zip(scale).zip(out.chunks_exact_mut(d)) {
            let mean = sum(row, |x| x) / d as f32;
            for (out, x) in out.iter_mut().zip(row) {
                *out = (x - mean) / scale;
            }
        }
    });
}

/// Applies `x / 2 (1 + erf(x / sqrt 2))` in place.
pub(super) fn gelu(values: &mut [f32]) {
    Arch::new().dispatch(|| {
        for x in values {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    });
}

/// Applies `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` in place.
pub(super) fn gelu_new(values: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    Arch::new().dispatch(|| {
        for x in values {
            *x = 0.5 * *x * (1.0 + tanh(SQRT_2_OVER_PI * (*x + 0.044_715 * *x * *x * *x)));
        }
    });
}

/// Applies `x / (1 + exp(-x))` in place.
pub(super) fn silu(values: &mut [f32]) {
    Arch::new().dispatch(|| {
        for x in values {
            *x /= 1.0 + exp(-*x);
        }
    });
}

/// Multiplies `values` by `factors` in place.
pub(super) fn multiply(values: &mut [f32], factors: &[f32]) {
    Arch::new().dispatch(|| {
        for (x, factor) in values.iter_mut().zip(factors) {
            *x *= factor;
        }
    });
}

/// Replaces each row of `values`, `width` wide, by its softmax.
pub(super) fn softmax(values: &mut [f32], width: usize) {
    Arch::new().dispatch(|| values.chunks_exact_mut(width).for_each(softmax_row));
}

/// Replaces a row by its softmax. Scores of -inf get exactly 0 and change no other weight.
#[inline(always)]
pub(super) fn softmax_row(row: &mut [f32]) {
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in row.chunks(LANES) {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = exp(*x - most));
    let inverse = 1.0 / sum(row, |x| x);
    row.iter_mut().for_each(|x| *x *= inverse);
}

/// Returns `exp(x)` within 2 ulp for `x` up to 88, and 0 below -87: `2^n exp(r)` with a polynomial
/// of Cephes for `r`, which is at most half of `ln 2`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 6] = [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
    /// Adding this number rounds to an integer, which the lowest bits of the sum then hold.
    const ROUNDING: f32 = 12_582_912.0;
    let bounded = if x < -87.0 { -87.0 } else { x };
    let bounded = if bounded > 88.0 { 88.0 } else { bounded };
    let rounded = bounded * std::f32::consts::LOG2_E + ROUNDING;
    let n = rounded - ROUNDING;
    let r = bounded - n * LN_2_HIGH - n * LN_2_LOW;
    let of_r = polynomial(&POLYNOMIAL, r) * r * r + r + 1.0;
    let two_to_n = f32::from_bits(rounded.to_bits().wrapping_sub(ROUNDING.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { of_r * two_to_n }
}

/// The rational approximation of erf on [-4, 4] that Eigen and XLA use, within 3 ulp.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    const ODD: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const EVEN: [f32; 5] = [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
    let square = x * x;
    let value = x * polynomial(&ODD, square) / polynomial(&EVEN, square);
    if x.abs() < 4.0 { value } else { 1.0_f32.copysign(x) }
}

/// The rational approximation of tanh on [-7.9, 7.9] that Eigen and XLA use, within 4 ulp.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    const ODD: [f32; 7] =
        [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619e-4, 4.893_524_6e-3];
    const EVEN: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    let square = x * x;
    let value = x * polynomial(&ODD, square) / polynomial(&EVEN, square);
    if x.abs() < 7.905_311 { value } else { 1.0_f32.copysign(x) }
}

/// Evaluates a polynomial; coefficients are from the highest power down.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let mut value = coefficients[0];
    for c in &coefficients[1..] {
        value = value * x + c;
    }
    value
}

/// Rows of a tensor `[batch, position, head, d_head]` in any memory layout whose `d_head` elements
/// are contiguous.
#[derive(Clone, Copy)]
pub(super) struct StridedRows<'a> {
    pub(super) data: &'a [f32],
    pub(super) start: usize,
    /// Strides of batch, position and head. The `d_head` elements of a head are contiguous.
    pub(super) strides: [usize; 3],
    pub(super) d_head: usize,
}

impl StridedRows<'_> {
    #[inline(always)]
    pub(super) fn at(&self, batch: usize, position: usize, head: usize) -> &[f32] {
        let [b, p, h] = self.strides;
        let from = self.start + batch * b + position * p + head * h;
        &self.data[from..from + self.d_head]
    }
}

/// Writes the heads at one position of a row of the batch, rotated, to `out`, `[head, d_head]`.
/// `cos` and `sin` belong to the leading dimensions, which turn in half-split pairs.
pub(super) fn rotate(x: StridedRows<'_>, [row, position]: [usize; 2], [cos, sin]: [&[f32]; 2], out: &mut [f32]) {
    let half = cos.len() / 2;
    let ([cos_low, cos_high], [sin_low, sin_high]) = (halves(cos, half), halves(sin, half));
    Arch::new().dispatch(|| {
        for (head, out) in out.chunks_exact_mut(x.d_head).enumerate() {
            let x = x.at(row, position, head);
            let [low, high] = halves(x, half);
            for (i, out) in out[..half].iter_mut().enumerate() {
                *out = low[i] * cos_low[i] - high[i] * sin_low[i];
            }
            for (i, out) in out[half..2 * half].iter_mut().enumerate() {
                *out = high[i] * cos_high[i] + low[i] * sin_high[i];
            }
            out[2 * half..].copy_from_slice(&x[2 * half..]);
        }
    });
}

/// Returns the first `half` elements, and as many after them.
#[inline(always)]
fn halves(x: &[f32], half: usize) -> [&[f32]; 2] {
    [&x[..half], &x[half..2 * half]]
}

/// The keys (or values) that one row of the batch attends to: those of the prompt's earlier
/// positions, then the row's own.
#[derive(Clone, Copy)]
pub(super) struct Attended<'a> {
    pub(super) earlier: Option<(StridedRows<'a>, usize)>,
    pub(super) n_earlier: usize,
    pub(super) own: StridedRows<'a>,
    pub(super) row: usize,
    /// The number of heads that share a key/value head.
    pub(super) sharing: usize,
}

impl Attended<'_> {
    #[inline(always)]
    pub(super) fn at(&self, key: usize, head: usize) -> &[f32] {
        let head = head / self.sharing;
        match &self.earlier {
            Some((rows, prompts)) if key < self.n_earlier => rows.at(self.row % prompts, key, head),
            _ => self.own.at(self.row, key - self.n_earlier, head),
        }
    }
}

/// Writes the scores of one row of the batch, `[head, query, key]`, to `out`. Keys that a query
/// does not attend to get -inf: those after its position and those before its window.
pub(super) fn scores(
    q: StridedRows<'_>,
    keys: Attended<'_>,
    [heads, n_queries, n_keys]: [usize; 3],
    queries: &Queries,
    rule: ScoreRule,
    out: &mut [f32],
) {
    let divisor = rule.divisor as f32;
    Arch::new().dispatch(|| {
        for head in 0..heads {
            for query in 0..n_queries {
                let row = &mut out[(head * n_queries + query) * n_keys..][..n_keys];
                let q = q.at(keys.row, query, head);
                let position = queries.position(keys.row, query);
                let (seen, hidden) = row.split_at_mut((position + 1).min(n_keys));
                let before = first_seen(position, rule.window).min(seen.len());
                for (key, score) in seen.iter_mut().enumerate().skip(before) {
                    *score = dot(q, keys.at(key, head)) / divisor;
                }
                if let Some(cap) = rule.cap {
                    let cap = cap as f32;
                    seen[before..].iter_mut().for_each(|score| *score = tanh(*score / cap) * cap);
                }
                seen[..before].fill(f32::NEG_INFINITY);
                hidden.fill(f32::NEG_INFINITY);
            }
        }
    });
}

#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * b;
    }
    fold(lanes)
}

/// Adds the values of one row of the batch, mixed by its pattern `[head, query, key]`, to `out`,
/// `[query, head, d_head]`.
pub(super) fn mix(pattern: &[f32], values: Attended<'_>, [heads, n_queries, n_keys]: [usize; 3], out: &mut [f32]) {
    let d_head = values.own.d_head;
    Arch::new().dispatch(|| {
        for head in 0..heads {
            for query in 0..n_queries {
                let pattern = &pattern[(head * n_queries + query) * n_keys..][..n_keys];
                let out = &mut out[(query * heads + head) * d_head..][..d_head];
                for (key, weight) in pattern.iter().enumerate() {
                    for (out, v) in out.iter_mut().zip(values.at(key, head)) {
                        *out += weight * v;
                    }
                }
            }
        }
    });
}
