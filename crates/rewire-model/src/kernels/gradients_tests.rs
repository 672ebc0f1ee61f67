//! The steps of the tape against burn's own operations and against the untracked operations.

use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Distribution, Tensor, backend::Backend};
use rewire_hooks::NormKind;

use crate::config::Activation;
use crate::kernels::attend::pattern;
use crate::kernels::queries::{Queries, ScoreRule};
use crate::kernels::{activate, gated, mix, moments, normalize, rotated, scores};

/// The backend whose operations are steps of the tape.
type Fused = Autodiff<Flex>;
/// The same backend with a setting for which nothing is fused.
type Plain = Autodiff<Flex, BalancedCheckpointing>;

/// An operation on tensors of one rank, on every backend.
trait Operation<const D: usize, const E: usize> {
    fn apply<B: Backend>(&self, inputs: &[Tensor<B, D>]) -> Tensor<B, E>;
}

fn random<const D: usize>(shape: [usize; D], spread: f64) -> Tensor<Flex, D> {
    Tensor::random(shape, Distribution::Normal(0.0, spread), &Default::default())
}

/// Returns the result, and the gradients of a loss that bends it with respect to each input.
fn differentiated<B: AutodiffBackend<InnerBackend = Flex>, const D: usize, const E: usize>(
    inputs: &[Tensor<Flex, D>],
    operation: &impl Operation<D, E>,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let leaves: Vec<_> = inputs.iter().map(|x| Tensor::<B, D>::from_inner(x.clone()).require_grad()).collect();
    let result = operation.apply(&leaves);
    let gradients = (result.clone() * 1.5).sin().sum().backward();
    let numbers = |leaf: &Tensor<B, D>| leaf.grad(&gradients).expect("a gradient").into_data().to_vec().unwrap();
    (result.inner().into_data().to_vec().unwrap(), leaves.iter().map(numbers).collect())
}

/// Checks that a step of the tape has the bits of the untracked operation, the gradients of the
/// plain operation, and no gradient if nothing is tracked.
fn check<const D: usize, const E: usize>(inputs: &[Tensor<Flex, D>], tolerance: f32, operation: &impl Operation<D, E>) {
    let (value, gradients) = differentiated::<Fused, D, E>(inputs, operation);
    let (_, expected) = differentiated::<Plain, D, E>(inputs, operation);
    assert_eq!(value, operation.apply(inputs).into_data().to_vec::<f32>().unwrap());
    for (found, expected) in gradients.iter().zip(&expected) {
        let largest = expected.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= tolerance * largest, "{a} is not {b}");
        }
    }
    let untracked: Vec<_> = inputs.iter().map(|x| Tensor::<Fused, D>::from_inner(x.clone())).collect();
    assert!(!operation.apply(&untracked).is_require_grad());
}

struct Activate(Activation);

impl Operation<3, 3> for Activate {
    fn apply<B: Backend>(&self, inputs: &[Tensor<B, 3>]) -> Tensor<B, 3> {
        match inputs {
            [x] => activate(x.clone(), self.0),
            [gate, factor] => gated(gate.clone(), factor.clone(), self.0),
            _ => unreachable!("one input, or a gate and a factor"),
        }
    }
}

#[test]
fn gradients_of_activation_functions_match_the_plain_ones() {
    for activation in [Activation::Gelu, Activation::GeluNew, Activation::Silu] {
        for spread in [1e-3, 1.0, 8.0] {
            let inputs = [random([2, 7, 33], spread), random([2, 7, 33], 1.0)];
            check(&inputs[..1], 2e-6, &Activate(activation));
            check(&inputs, 5e-6, &Activate(activation));
        }
    }
}

#[test]
fn slopes_of_activation_functions_are_0_or_1_far_from_zero() {
    for activation in [Activation::Gelu, Activation::GeluNew, Activation::Silu] {
        let x = Tensor::<Flex, 1>::from_floats([-3e38, -1e20, -200.0, 200.0, 1e20, 3e38], &Default::default());
        let x = Tensor::<Fused, 1>::from_inner(x).reshape([1, 1, 6]).require_grad();
        let gradients = activate(x.clone(), activation).sum().backward();
        let found = x.grad(&gradients).unwrap().into_data().to_vec::<f32>().unwrap();
        assert_eq!(found.iter().map(|x| x.round() + 0.0).collect::<Vec<_>>(), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }
}

struct Norm(NormKind);

impl Operation<3, 3> for Norm {
    fn apply<B: Backend>(&self, inputs: &[Tensor<B, 3>]) -> Tensor<B, 3> {
        let (scale, rest) = moments(inputs[0].clone(), self.0, 1e-5);
        normalize(rest, scale, None, None)
    }
}

/// A norm whose scale is held constant.
struct HeldNorm(NormKind);

impl Operation<3, 3> for HeldNorm {
    fn apply<B: Backend>(&self, inputs: &[Tensor<B, 3>]) -> Tensor<B, 3> {
        let (scale, rest) = moments(inputs[0].clone(), self.0, 1e-5);
        normalize(rest, scale.detach(), None, None)
    }
}

#[test]
fn gradients_of_norms_match_the_plain_ones() {
    for d_model in [4, 37, 768] {
        for kind in [NormKind::Layer, NormKind::Rms] {
            let x = [random([3, 5, d_model], 2.0) + 0.7];
            check(&x, 5e-6, &Norm(kind));
            check(&x, 5e-6, &HeldNorm(kind));
        }
    }
}

/// Rotation by angles that the dimensions of a pair share.
struct Rotate {
    dims: usize,
}

impl Operation<4, 4> for Rotate {
    fn apply<B: Backend>(&self, inputs: &[Tensor<B, 4>]) -> Tensor<B, 4> {
        let pos = inputs[0].dims()[1];
        let half = self.dims / 2;
        let angle = |i: usize| (i / self.dims) as f32 * 0.7 / (1.0 + (i % self.dims % half) as f32);
        let of = |f: fn(f32) -> f32| {
            let numbers: Vec<f32> = (0..pos * self.dims).map(|i| f(angle(i))).collect();
            Tensor::<B, 1>::from_floats(numbers.as_slice(), &Default::default()).reshape([1, pos, 1, self.dims])
        };
        rotated(inputs[0].clone(), &of(f32::cos), &of(f32::sin))
    }
}

#[test]
fn gradients_of_rotations_match_the_plain_ones() {
    for (d_head, dims) in [(8, 8), (20, 6), (64, 64)] {
        check(&[random([3, 4, 5, d_head], 1.0)], 2e-6, &Rotate { dims });
    }
}

/// Attention with earlier keys and values, which are constants.
struct Attend {
    earlier: Option<[Tensor<Flex, 4>; 2]>,
    queries: Queries,
    rule: ScoreRule,
}

impl Operation<4, 4> for Attend {
    fn apply<B: Backend>(&self, inputs: &[Tensor<B, 4>]) -> Tensor<B, 4> {
        let moved = |x: &Tensor<Flex, 4>| Tensor::from_data(x.to_data(), &Default::default());
        let [keys, values] = match &self.earlier {
            Some(earlier) => earlier.each_ref().map(|x| Some(moved(x))),
            None => [None, None],
        };
        let [q, k, v] = [0, 1, 2].map(|i| inputs[i].clone());
        let scores = scores(q, k, keys, &self.queries, self.rule);
        mix(pattern(scores, self.rule), v, values)
    }
}

#[test]
fn gradients_of_attention_match_the_plain_ones() {
    let plain = ScoreRule { divisor: 4.0, cap: None, window: None, softmax_temperature: 1.0 };
    let rules = [plain, ScoreRule { cap: Some(0.5), ..plain }, ScoreRule { window: Some(3), ..plain }];
    let soft = ScoreRule { softmax_temperature: 2.0, cap: Some(2.0), ..plain };
    let (heads, d_head, own) = (6, 20, 5);
    for rule in rules.into_iter().chain([soft]) {
        for (kv_heads, earlier) in [(6, 0), (2, 4), (1, 3)] {
            let of_keys = |rows, pos| random([rows, pos, kv_heads, d_head], 1.0);
            let before = (earlier > 0).then(|| [of_keys(2, earlier), of_keys(2, earlier)]);
            let ends = Queries::Each { positions: (0..4).map(|row| earlier + row).collect(), per_row: 1 };
            for (n, queries) in [(own, Queries::From(earlier)), (1, ends)] {
                let inputs = [random([4, n, heads, d_head], 1.0), of_keys(4, own), of_keys(4, own)];
                check(&inputs, 5e-6, &Attend { earlier: before.clone(), queries, rule });
            }
        }
    }
}
