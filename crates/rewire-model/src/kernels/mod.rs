//! The operations that dominate a profile, fused on backends that expose their memory.
//!
//! Each operation has a plain version in burn's operations, with gradients, which every backend
//! runs. The tests compare the fused version with the plain one. Float32 tensors on the flex
//! backend use the fused version. On autodiff over flex, it is one step of the tape, with a fused
//! backward pass and the same bits.

pub(crate) mod attend;
pub(crate) mod blocks;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod gradients;
#[cfg(feature = "flex")]
mod gradients_attention;
#[cfg(all(test, feature = "flex"))]
mod gradients_tests;
pub(crate) mod queries;
#[cfg(feature = "flex")]
mod simd;
#[cfg(feature = "flex")]
mod simd_attend;
#[cfg(feature = "flex")]
mod simd_backward;
pub(crate) mod surrogate;
#[cfg(feature = "flex")]
pub(crate) mod tape;
#[cfg(feature = "flex")]
mod tracked;

use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor, backend::Backend};

use crate::config::Activation;
use crate::kernels::queries::{Queries, ScoreRule};
use rewire_hooks::NormKind;
use rewire_tensor::{cast_like, matmul, to_f32};

/// The input of a norm's second half, after its scale `[batch, pos, 1]` is known.
pub(crate) enum Moments<B: Backend> {
    /// The input as the norm divides it: centered by layer norm.
    Ready(Tensor<B, 3>),
    /// The input itself. It is centered while it is divided.
    #[cfg(feature = "flex")]
    Fused(Tensor<B, 3>, NormKind),
}

/// Computes the first half of a norm over `x` `[batch, pos, d_model]`. Returns the scale and the
/// input of the second half.
pub(crate) fn moments<B: Backend>(x: Tensor<B, 3>, kind: NormKind, eps: f64) -> (Tensor<B, 3>, Moments<B>) {
    #[cfg(feature = "flex")]
    if let Some(scale) = flex::norm_scale(&x, kind, eps as f32) {
        return match kind {
            NormKind::Layer => (scale, Moments::Fused(x, kind)),
            NormKind::Rms => (scale, Moments::Ready(x)),
        };
    }
    #[cfg(feature = "flex")]
    if let Some(scale) = gradients::norm_scale(&x, kind, eps as f32) {
        return (scale, Moments::Fused(x, kind));
    }
    let read = kind.centered(x);
    let squares = (read.clone() * read.clone()).mean_dim(2);
    ((squares + eps).sqrt(), Moments::Ready(read))
}

/// Computes the second half of a norm: divides the input by `scale`, and applies gain and bias
/// `[d_model]` if there are any.
pub(crate) fn normalize<B: Backend>(
    moments: Moments<B>,
    scale: Tensor<B, 3>,
    gain: Option<Tensor<B, 1>>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 3> {
    let mut out = match moments {
        Moments::Ready(read) => read / scale,
        #[cfg(feature = "flex")]
        Moments::Fused(x, kind) => {
            match flex::normalize(&x, &scale).or_else(|| gradients::normalize(&x, &scale, kind)) {
                Some(normalized) => normalized,
                None => kind.centered(x) / scale,
            }
        }
    };
    if let Some(gain) = gain {
        let d_model = gain.dims()[0];
        out = out * gain.reshape([1, 1, d_model]);
    }
    if let Some(bias) = bias {
        let d_model = bias.dims()[0];
        out = out + bias.reshape([1, 1, d_model]);
    }
    out
}

/// Returns `cap tanh(x / cap)`, which is near `x` for small values and never exceeds `cap`.
pub(crate) fn soft_capped<B: Backend, const D: usize>(x: Tensor<B, D>, cap: f64) -> Tensor<B, D> {
    (x / cap).tanh() * cap
}

/// Applies the activation function of an MLP.
pub(crate) fn activate<B: Backend>(x: Tensor<B, 3>, activation: Activation) -> Tensor<B, 3> {
    if x.dtype() == DType::BF16 {
        return cast_like(activate(to_f32(x.clone()), activation), &x);
    }
    #[cfg(feature = "flex")]
    let x = match flex::activate(x, activation) {
        Ok(done) => return done,
        Err(x) => x,
    };
    #[cfg(feature = "flex")]
    if let Some(done) = gradients::activate(&x, activation) {
        return done;
    }
    match activation {
        // Written out because on every backend but flex, burn's fused `gelu` has the gradient of
        // the tanh form, which is off by 1e-4.
        Activation::Gelu => x.clone() * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
        Activation::Relu => relu(x),
        // Written with tanh because burn computes its sigmoid in float32 on a float64 backend too.
        // The exponential would overflow.
        Activation::Silu => x.clone() * ((x * 0.5).tanh() + 1.0) * 0.5,
        Activation::GeluNew => {
            // Written out because burn's tanh form uses a power, and two multiplications are
            // faster.
            let sqrt_2_over_pi = (2.0 / std::f64::consts::PI).sqrt();
            let cube = x.clone() * x.clone() * x.clone();
            let inner = (x.clone() + cube * 0.044_715) * sqrt_2_over_pi;
            x * (inner.tanh() + 1.0) * 0.5
        }
    }
}

/// Applies the activation function of a gated MLP to `gate` and multiplies the result by `factor`,
/// both `[batch, pos, d_mlp]`.
pub(crate) fn gated<B: Backend>(gate: Tensor<B, 3>, factor: Tensor<B, 3>, activation: Activation) -> Tensor<B, 3> {
    #[cfg(feature = "flex")]
    let gate = match flex::gated(gate, &factor, activation) {
        Ok(done) => return done,
        Err(gate) => gate,
    };
    #[cfg(feature = "flex")]
    if let Some(done) = gradients::gated(&gate, &factor, activation) {
        return done;
    }
    activate(gate, activation) * factor
}

/// Rotates the leading dimensions of each head of `x`, `[batch, pos, head, d_head]`, in half-split
/// pairs.
///
/// `cos` and `sin` hold the cosine and the sine of each turning dimension,
/// `[1 or batch, pos, 1, dims]`.
pub(crate) fn rotated<B: Backend>(x: Tensor<B, 4>, cos: &Tensor<B, 4>, sin: &Tensor<B, 4>) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if let Some(rotated) = flex::rotated(&x, cos, sin).or_else(|| gradients::rotated(&x, cos, sin)) {
        return rotated;
    }
    let ([_, _, _, d_head], [_, _, _, dims]) = (x.dims(), cos.dims());
    let half = dims / 2;
    let turned = x.clone().narrow(3, 0, dims);
    let (low, high) = (turned.clone().narrow(3, 0, half), turned.clone().narrow(3, half, half));
    let quarter_turn = Tensor::cat(vec![high.neg(), low], 3);
    let rotated = turned * cos.clone() + quarter_turn * sin.clone();
    if dims == d_head {
        return rotated;
    }
    Tensor::cat(vec![rotated, x.narrow(3, dims, d_head - dims)], 3)
}

/// Returns masked attention scores, `[batch, head, query, key]`.
///
/// `q` is `[batch, query, head, d_head]`, and `k` is `[batch, own, key/value head, d_head]`. The
/// heads of `q` share those of `k` in equal groups. `earlier` holds the keys of the earlier
/// positions, `[prompts, earlier, key/value head, d_head]`. Row `r` of the batch uses those of
/// prompt `r % prompts`.
pub(crate) fn scores<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    earlier: Option<Tensor<B, 4>>,
    queries: &Queries,
    rule: ScoreRule,
) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if let Some(scores) = flex::scores(&q, &k, earlier.as_ref(), queries, rule)
        .or_else(|| gradients_attention::scores(&q, &k, earlier.as_ref(), queries, rule))
    {
        return scores;
    }
    let heads = q.dims()[2];
    let (q, k) = (to_f32(q), to_f32(shared_by(heads, join(earlier, k))));
    // [batch, head, query, d_head] @ [batch, head, d_head, key]
    let scores = matmul(q.swap_dims(1, 2), k.permute([0, 2, 3, 1])) / rule.divisor;
    let scores = match rule.cap {
        Some(cap) => soft_capped(scores, cap),
        None => scores,
    };
    let mask = queries.mask::<B>(scores.dims(), rule.window, &scores.device()).expand(scores.shape());
    scores.mask_fill(mask, f32::NEG_INFINITY)
}

/// Returns values mixed by `pattern` `[batch, head, query, key]`: `[batch, query, head, d_head]`.
/// `v` and `earlier` have the shapes of `k` and `earlier` in [`scores`].
pub(crate) fn mix<B: Backend>(pattern: Tensor<B, 4>, v: Tensor<B, 4>, earlier: Option<Tensor<B, 4>>) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if let Some(mixed) =
        flex::mix(&pattern, &v, earlier.as_ref()).or_else(|| gradients_attention::mix(&pattern, &v, earlier.as_ref()))
    {
        return mixed;
    }
    let heads = pattern.dims()[1];
    let mixed = matmul(pattern, shared_by(heads, join(earlier, v.clone())).swap_dims(1, 2)).swap_dims(1, 2);
    cast_like(mixed, &v)
}

/// Returns keys or values `[batch, pos, key/value head, d_head]` with one copy for each of `heads`
/// heads, `[batch, pos, head, d_head]`.
fn shared_by<B: Backend>(heads: usize, x: Tensor<B, 4>) -> Tensor<B, 4> {
    let [batch, pos, shared, d_head] = x.dims();
    if shared == heads {
        return x;
    }
    let copies = heads / shared.max(1);
    let copied = x.reshape([batch, pos, shared, 1, d_head]).expand([batch, pos, shared, copies, d_head]);
    copied.reshape([batch, pos, heads, d_head])
}

/// Returns the keys or values of the earlier positions, repeated for each copy of their prompts,
/// followed by the run's own.
fn join<B: Backend>(earlier: Option<Tensor<B, 4>>, own: Tensor<B, 4>) -> Tensor<B, 4> {
    match earlier {
        None => own,
        Some(earlier) => {
            let copies = own.dims()[0] / earlier.dims()[0].max(1);
            Tensor::cat(vec![earlier.repeat_dim(0, copies), own], 1)
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Distribution;

    /// A backend that uses the plain version: nothing is fused on autodiff with checkpoints.
    type Plain = Autodiff<Flex, BalancedCheckpointing>;

    fn random<const D: usize>(shape: [usize; D], spread: f64) -> Tensor<Plain, D> {
        Tensor::random(shape, Distribution::Normal(0.0, spread), &Default::default())
    }

    fn assert_same<const D: usize>(fused: Tensor<Flex, D>, plain: Tensor<Plain, D>, tolerance: f32) {
        let [fused, plain] = [fused, plain.inner()].map(|t| t.into_data().to_vec::<f32>().unwrap());
        assert_eq!(fused.len(), plain.len());
        for (a, b) in fused.iter().zip(&plain) {
            assert!(a == b || (a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b}");
        }
    }

    #[test]
    fn fused_norms_match_the_plain_ones() {
        for d_model in [1, 4, 37, 768] {
            let x = random([3, 5, d_model], 2.0) + 0.7;
            for kind in [NormKind::Layer, NormKind::Rms] {
                let (scale, rest) = moments(x.clone().inner(), kind, 1e-5);
                let (plain_scale, plain_rest) = moments(x.clone(), kind, 1e-5);
                assert_eq!(matches!(rest, Moments::Fused(..)), kind == NormKind::Layer);
                assert!(matches!(plain_rest, Moments::Ready(_)));
                assert_same(scale.clone(), plain_scale.clone(), 1e-6);
                assert_same(normalize(rest, scale, None, None), normalize(plain_rest, plain_scale, None, None), 2e-6);
            }
        }
    }

    #[test]
    fn fused_activation_functions_match_the_plain_ones() {
        for activation in [Activation::Gelu, Activation::GeluNew, Activation::Silu] {
            for spread in [1e-4, 1.0, 8.0, 200.0] {
                let (x, factor) = (random([2, 7, 33], spread), random([2, 7, 33], 1.0));
                let activated = activate(x.clone().inner(), activation);
                assert_same(activated.clone(), activate(x.clone(), activation), 1e-6);
                let product = activated * factor.clone().inner();
                assert_eq!(gated(x.inner(), factor.inner(), activation).into_data(), product.into_data());
            }
        }
    }

    #[test]
    fn fused_silu_holds_its_precision_far_from_zero() {
        let x: Vec<f32> = (-1200..=1200).map(|i| i as f32 * 0.1).collect();
        let tensor = Tensor::<Flex, 1>::from_floats(x.as_slice(), &Default::default()).reshape([1, 1, x.len()]);
        let found = activate(tensor, Activation::Silu).into_data().to_vec::<f32>().unwrap();
        for (x, found) in x.into_iter().map(f64::from).zip(found) {
            let exact = x / (1.0 + (-x).exp());
            // Below -87, the exponential is held at e^87.
            assert!((f64::from(found) - exact).abs() <= 1e-35 + 5e-7 * exact.abs(), "silu({x}): {found}, not {exact}");
        }
    }

    #[test]
    fn fused_rotation_matches_the_plain_one() {
        let [batch, pos, heads] = [3, 4, 5];
        for (d_head, dims) in [(8, 8), (20, 6), (64, 64)] {
            let x = random([batch, pos, 2 * heads, d_head], 1.0);
            // All heads, and a view of some of them.
            for x in [x.clone(), x.narrow(2, 3, heads)] {
                for rows in [1, batch] {
                    let [cos, sin] = [(); 2].map(|()| random([rows, pos, 1, dims], 1.0));
                    let fused = rotated(x.clone().inner(), &cos.clone().inner(), &sin.clone().inner());
                    assert_same(fused, rotated(x.clone(), &cos, &sin), 1e-6);
                }
            }
        }
    }

    #[test]
    fn fused_attention_matches_the_plain_one() {
        // The divisor of the third layer, if scores are scaled by the inverse layer.
        let plain = ScoreRule { divisor: 3.0 * 20.0_f64.sqrt(), cap: None, window: None, softmax_temperature: 1.0 };
        for (kv_heads, rule) in
            [(6, plain), (2, plain), (3, ScoreRule { cap: Some(0.5), window: Some(3), ..plain }), (1, plain)]
        {
            assert_attention_matches(6, kv_heads, rule);
        }
    }

    fn assert_attention_matches(heads: usize, kv_heads: usize, rule: ScoreRule) {
        let (d_head, earlier, own) = (20, 4, 5);
        let [keys, values] = [(); 2].map(|()| random([2, earlier, kv_heads, d_head], 1.0));
        let [k, v] = [(); 2].map(|()| random([6, own, kv_heads, d_head], 1.0));
        for (n, queries) in [
            (own, Queries::From(earlier)),
            (1, Queries::Each { positions: vec![4, 8, 5, 6, 7, 8], per_row: 1 }),
            (2, Queries::Each { positions: vec![4, 5, 7, 8, 5, 5, 6, 8, 7, 4, 8, 8], per_row: 2 }),
        ] {
            let q = random([6, n, heads, d_head], 1.0);
            let fused = scores(q.clone().inner(), k.clone().inner(), Some(keys.clone().inner()), &queries, rule);
            let plain = scores(q, k.clone(), Some(keys.clone()), &queries, rule);
            assert_same(fused.clone(), plain.clone(), 1e-5);
            let pattern = |s| burn::tensor::activation::softmax(s, 3);
            let fused = mix(pattern(fused), v.clone().inner(), Some(values.clone().inner()));
            let plain = mix(burn::tensor::activation::softmax(plain, 3), v.clone(), Some(values.clone()));
            assert_same(fused, plain, 1e-5);
        }
        let q = random([6, own, heads, d_head], 1.0);
        let fused = scores(q.clone().inner(), k.clone().inner(), None, &Queries::From(0), rule);
        assert_same(fused, scores(q, k, None, &Queries::From(0), rule), 1e-5);
    }
}
