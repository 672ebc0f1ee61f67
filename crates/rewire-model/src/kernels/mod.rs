//! The operations that dominate a profile, fused on backends that expose their memory.
//!
//! Each operation has a plain version in burn's operations, with gradients, which every backend
//! runs. The tests compare the fused version with the plain one. Only untracked float32 tensors on
//! the flex backend use the fused version.

#[cfg(feature = "flex")]
mod flex;
pub(crate) mod queries;
#[cfg(feature = "flex")]
mod simd;

use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor, backend::Backend};

use crate::config::Activation;
use crate::kernels::queries::Queries;
use rewire_tensor::{cast_like, matmul, to_f32};

/// The input of layer norm's second half, after its scale `sqrt(var + eps)` `[batch, pos, 1]` is
/// known.
pub(crate) enum Moments<B: Backend> {
    /// The centered input.
    Centered(Tensor<B, 3>),
    /// The input itself. It is centered while it is divided.
    #[cfg(feature = "flex")]
    Fused(Tensor<B, 3>),
}

/// Computes the first half of layer norm over `x` `[batch, pos, d_model]`. Returns the scale and
/// the input of the second half.
pub(crate) fn moments<B: Backend>(x: Tensor<B, 3>, eps: f64) -> (Tensor<B, 3>, Moments<B>) {
    #[cfg(feature = "flex")]
    if let Some(scale) = flex::norm_scale(&x, eps as f32) {
        return (scale, Moments::Fused(x));
    }
    let centered = x.clone() - x.mean_dim(2);
    let variance = (centered.clone() * centered.clone()).mean_dim(2);
    ((variance + eps).sqrt(), Moments::Centered(centered))
}

/// Computes the second half of layer norm: divides the centered input by `scale`, and applies gain
/// and bias `[d_model]` if there are any.
pub(crate) fn normalize<B: Backend>(
    moments: Moments<B>,
    scale: Tensor<B, 3>,
    affine: Option<(Tensor<B, 1>, Tensor<B, 1>)>,
) -> Tensor<B, 3> {
    let mut out = match moments {
        Moments::Centered(centered) => centered / scale,
        #[cfg(feature = "flex")]
        Moments::Fused(x) => match flex::normalize(&x, &scale) {
            Some(normalized) => normalized,
            None => (x.clone() - x.mean_dim(2)) / scale,
        },
    };
    if let Some((gain, bias)) = affine {
        let d_model = gain.dims()[0];
        out = out * gain.reshape([1, 1, d_model]) + bias.reshape([1, 1, d_model]);
    }
    out
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
    match activation {
        // Written out because on every backend but flex, burn's fused `gelu` has the gradient of
        // the tanh form, which is off by 1e-4.
        Activation::Gelu => x.clone() * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
        Activation::Relu => relu(x),
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

/// Returns masked attention scores divided by `divisor`, `[batch, head, query, key]`.
///
/// `q` is `[batch, query, head, d_head]`, and `k` is `[batch, own, head, d_head]`. `earlier` holds
/// the keys of the earlier positions, `[prompts, earlier, head, d_head]`. Row `r` of the batch uses
/// those of prompt `r % prompts`.
pub(crate) fn scores<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    earlier: Option<Tensor<B, 4>>,
    queries: &Queries,
    divisor: f64,
) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if let Some(scores) = flex::scores(&q, &k, earlier.as_ref(), queries, divisor) {
        return scores;
    }
    let (q, k) = (to_f32(q), to_f32(join(earlier, k)));
    // [batch, head, query, d_head] @ [batch, head, d_head, key]
    let scores = matmul(q.swap_dims(1, 2), k.permute([0, 2, 3, 1])) / divisor;
    let mask = queries.mask::<B>(scores.dims(), &scores.device()).expand(scores.shape());
    scores.mask_fill(mask, f32::NEG_INFINITY)
}

/// Returns values mixed by `pattern` `[batch, head, query, key]`: `[batch, query, head, d_head]`.
/// `v` and `earlier` have the shapes of `k` and `earlier` in [`scores`].
pub(crate) fn mix<B: Backend>(pattern: Tensor<B, 4>, v: Tensor<B, 4>, earlier: Option<Tensor<B, 4>>) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if let Some(mixed) = flex::mix(&pattern, &v, earlier.as_ref()) {
        return mixed;
    }
    let mixed = matmul(pattern, join(earlier, v.clone()).swap_dims(1, 2)).swap_dims(1, 2);
    cast_like(mixed, &v)
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
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Distribution;

    /// A backend that uses the plain version: tensors that can be tracked are not fused.
    type Plain = Autodiff<Flex>;

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
    fn fused_layer_norm_matches_the_plain_one() {
        for d_model in [1, 4, 37, 768] {
            let x = random([3, 5, d_model], 2.0) + 0.7;
            let (scale, rest) = moments(x.clone().inner(), 1e-5);
            let (plain_scale, plain_rest) = moments(x, 1e-5);
            assert!(matches!((&rest, &plain_rest), (Moments::Fused(_), Moments::Centered(_))));
            assert_same(scale.clone(), plain_scale.clone(), 1e-6);
            assert_same(normalize(rest, scale, None), normalize(plain_rest, plain_scale, None), 2e-6);
        }
    }

    #[test]
    fn fused_activation_functions_match_the_plain_ones() {
        for activation in [Activation::Gelu, Activation::GeluNew] {
            for spread in [1e-4, 1.0, 8.0] {
                let x = random([2, 7, 33], spread);
                assert_same(activate(x.clone().inner(), activation), activate(x, activation), 1e-6);
            }
        }
    }

    #[test]
    fn fused_attention_matches_the_plain_one() {
        let (heads, d_head, earlier, own) = (3, 20, 4, 5);
        // The divisor of the third layer, if scores are scaled by the inverse layer.
        let divisor = 3.0 * (d_head as f64).sqrt();
        let [keys, values] = [(); 2].map(|()| random([2, earlier, heads, d_head], 1.0));
        let [k, v] = [(); 2].map(|()| random([6, own, heads, d_head], 1.0));
        for (n, queries) in [
            (own, Queries::From(earlier)),
            (1, Queries::Each { positions: vec![4, 8, 5, 6, 7, 8], per_row: 1 }),
            (2, Queries::Each { positions: vec![4, 5, 7, 8, 5, 5, 6, 8, 7, 4, 8, 8], per_row: 2 }),
        ] {
            let q = random([6, n, heads, d_head], 1.0);
            let fused = scores(q.clone().inner(), k.clone().inner(), Some(keys.clone().inner()), &queries, divisor);
            let plain = scores(q, k.clone(), Some(keys.clone()), &queries, divisor);
            assert_same(fused.clone(), plain.clone(), 1e-5);
            let pattern = |s| burn::tensor::activation::softmax(s, 3);
            let fused = mix(pattern(fused), v.clone().inner(), Some(values.clone().inner()));
            let plain = mix(burn::tensor::activation::softmax(plain, 3), v.clone(), Some(values.clone()));
            assert_same(fused, plain, 1e-5);
        }
        let q = random([6, own, heads, d_head], 1.0);
        let fused = scores(q.clone().inner(), k.clone().inner(), None, &Queries::From(0), divisor);
        assert_same(fused, scores(q, k, None, &Queries::From(0), divisor), 1e-5);
    }
}
