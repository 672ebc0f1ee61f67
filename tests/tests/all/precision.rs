//! With bfloat16 weights and activations every method runs, has the documented dtypes, and is near
//! float32.

use std::collections::BTreeMap;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::DType;
use ndarray::{ArrayD, Axis, s};
use rewire_analysis::heads::{CopyNorms, copy_scores};
use rewire_analysis::integrated::IntegratedGradientsOptions;
use rewire_analysis::run::{Execution, Scale};
use rewire_hooks::{ActivationCache, HookPoint, NormSite, Recorder, Site};
use rewire_model::{Activation, Run, Transformer, WeightProcessing};
use rewire_tasks::PromptPairs;
use rewire_tensor::Precision;
use rewire_tests::compare::array;
use rewire_tests::fixture::Fixture;
use rewire_tests::methods::every_effect;

type Tracked = Autodiff<Flex>;

fn both(fixture: &Fixture) -> [Transformer<Tracked>; 2] {
    [Precision::Float32, Precision::BFloat16]
        .map(|precision| fixture.model::<Tracked>(WeightProcessing::default()).to_precision(precision))
}

#[test]
fn activations_have_the_documented_dtypes() {
    for fixture in Fixture::all() {
        let [_, model] = both(&fixture);
        let model = model.valid();
        assert_eq!(model.precision(), Precision::BFloat16);
        let pairs = fixture.pairs(&model);
        let mut recorder = Recorder::all();
        let logits = model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
        assert_eq!(logits.dtype(), DType::F32);
        let cache = recorder.into_cache();
        for point in cache.points() {
            let full = match point {
                HookPoint::FinalNorm(NormSite::Scale | NormSite::Normalized) => true,
                other => other.site().is_some_and(|site| {
                    matches!(site, Site::Ln1Scale | Site::Ln2Scale | Site::AttnScores | Site::Pattern)
                }),
            };
            let dtype = cache.any(point).unwrap().dtype();
            assert_eq!(dtype == DType::F32, full, "{}: {point} is of {dtype:?}", fixture.name);
        }
    }
}

/// Half of the last of bfloat16's 8 bits, as a share of a number: the largest change from storing
/// it.
const HALF_BIT: f64 = 1.0 / 256.0;

/// Panics if `found` differs from `exact` by more than storage: one rounding of a bfloat16 tensor,
/// or float32's error for a float32 tensor.
fn assert_stored(found: &ArrayD<f32>, exact: &ArrayD<f64>, dtype: DType, what: &str) {
    assert_eq!(found.shape(), exact.shape(), "{what}");
    let share = if dtype == DType::F32 { 0.0 } else { HALF_BIT };
    let size = exact.iter().filter(|v| v.is_finite()).fold(0.0_f64, |m, v| m.max(v.abs()));
    for (found, exact) in found.iter().zip(exact) {
        let (found, difference) = (f64::from(*found), (f64::from(*found) - exact).abs());
        let allowed = 1.01 * share * exact.abs() + FLOAT32 * size;
        assert!(found == *exact || difference <= allowed, "{what}: {found} is not {exact}");
    }
}

/// Largest float32 error in a norm, softmax, activation function or matmul of a tiny model, as a
/// share of the largest entry.
const FLOAT32: f64 = 2e-6;

/// Returns a recorded activation as it is stored, and its dtype.
fn stored(cache: &ActivationCache<Flex>, point: HookPoint) -> (ArrayD<f32>, DType) {
    let x = cache.any(point).unwrap();
    let flat = array(x.reshape([x.dims().iter().product()]));
    (flat.into_shape_with_order(x.dims()).unwrap(), x.dtype())
}

/// Returns the scale and the result of layer norm without gain, over the last axis.
fn layer_norm(x: &ArrayD<f64>, eps: f64) -> [ArrayD<f64>; 2] {
    let last = Axis(x.ndim() - 1);
    let centered = x - &x.mean_axis(last).unwrap().insert_axis(last);
    let scale = ((&centered * &centered).mean_axis(last).unwrap() + eps).mapv(f64::sqrt).insert_axis(last);
    let normalized = &centered / &scale;
    [scale, normalized]
}

/// Returns softmax over the last axis.
fn softmax(scores: &ArrayD<f64>) -> ArrayD<f64> {
    let last = Axis(scores.ndim() - 1);
    let exponentials = scores.mapv(f64::exp);
    let sums = exponentials.sum_axis(last).insert_axis(last);
    exponentials / sums
}

/// Norms, scores, softmax, activation functions and logits lose precision only when their results
/// are stored: each equals the float64 result from the stored tensors that it reads.
#[test]
fn norms_scores_softmax_and_logits_are_computed_in_float32() {
    for fixture in Fixture::all() {
        let [_, model] = both(&fixture);
        let model = model.valid();
        let config = model.config().clone();
        let mut recorder = Recorder::all();
        let logits =
            model.forward(Run::tokens(model.tokens(&fixture.pairs(&model).clean()).unwrap()), &mut recorder).unwrap();
        let cache = recorder.into_cache();
        let exact = |point| stored(&cache, point).0.mapv(f64::from);
        let check = |point: HookPoint, expected: &ArrayD<f64>| {
            let (found, dtype) = stored(&cache, point);
            assert_stored(&found, expected, dtype, &format!("{} {point}", fixture.name));
        };
        for layer in 0..config.n_layers {
            let at = |site| HookPoint::block(layer, site);
            let middle = if config.parallel_block { Site::ResidPre } else { Site::ResidMid };
            for (read, sites) in [
                (Site::ResidPre, [Site::Ln1Scale, Site::Ln1Normalized]),
                (middle, [Site::Ln2Scale, Site::Ln2Normalized]),
            ] {
                let expected = layer_norm(&exact(at(read)), config.norm_eps);
                sites.iter().zip(&expected).for_each(|(site, expected)| check(at(*site), expected));
            }
            let [q, k] = if config.is_rotary() { [Site::RotQ, Site::RotK] } else { [Site::Q, Site::K] }
                .map(|site| exact(at(site)));
            let scores = ArrayD::from_shape_fn(stored(&cache, at(Site::AttnScores)).0.shape(), |i| {
                let (query, key) = (q.slice(s![i[0], i[2], i[1], ..]), k.slice(s![i[0], i[3], i[1], ..]));
                if i[3] > i[2] { f64::NEG_INFINITY } else { query.dot(&key) / (config.d_head as f64).sqrt() }
            });
            check(at(Site::AttnScores), &scores);
            check(at(Site::Pattern), &softmax(&exact(at(Site::AttnScores))));
            check(at(Site::MlpPost), &exact(at(Site::MlpPre)).mapv(|x| gelu(x, config.activation)));
        }
        let last = exact(HookPoint::block(config.n_layers - 1, Site::ResidPost));
        let expected = layer_norm(&last, config.norm_eps);
        for (site, expected) in [NormSite::Scale, NormSite::Normalized].into_iter().zip(&expected) {
            check(HookPoint::FinalNorm(site), expected);
        }
        let normalized = exact(HookPoint::FinalNorm(NormSite::Normalized));
        let (rows, columns) = (normalized.len() / config.d_model, config.d_vocab);
        let normalized = normalized.into_shape_with_order((rows, config.d_model)).unwrap();
        let w_u = array(model.unembedding()).mapv(f64::from).into_shape_with_order((config.d_model, columns)).unwrap();
        let b_u = model.b_u().map_or(ArrayD::zeros(vec![columns]), |b_u| array(b_u).mapv(f64::from));
        let expected = normalized.dot(&w_u) + b_u;
        let found = array(logits).into_shape_with_order(vec![rows, columns]).unwrap();
        assert_stored(&found, &expected.into_dyn(), DType::F32, &format!("{} logits", fixture.name));
    }
}

/// Returns the exact GELU, or its tanh form.
fn gelu(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::GeluNew => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        _ => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    }
}

/// Returns the error function from its series, which converges everywhere.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}

/// A result and its name.
type Named = (String, ArrayD<f32>);

/// Returns the relative error of every method's results in bfloat16, by name: the norm of the
/// difference over the norm of the result.
fn errors(full: &Transformer<Tracked>, pairs: &PromptPairs) -> Vec<(String, f64)> {
    let short = full.clone().to_precision(Precision::BFloat16);
    // With 8 bits, integrated gradients do not sum to the change of the metric within a hundredth.
    let integral =
        IntegratedGradientsOptions { tolerance: f64::INFINITY, panels: 1, ..IntegratedGradientsOptions::default() };
    let execution = Execution::default();
    let [full, short] = [full, &short].map(|model| every_effect(model, pairs, Scale::Metric, &integral, &execution));
    let norm = |values: &ArrayD<f32>| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let error = |((name, full), (_, short)): (&Named, &Named)| {
        assert!(norm(full) > 0.0, "{name}: nothing was found");
        assert!(full != short, "{name}: the same numbers");
        (name.clone(), norm(&(short - full)) / norm(full))
    };
    full.iter().zip(&short).map(error).collect()
}

/// Largest allowed errors, by a part of the result's name: the median over the models, and the
/// maximum. Both are one and a half times the errors measured over the fixtures and random models
/// with seeds 0 to 3 in their shapes.
///
/// Effects of queries through the attention of one head, of single neurons and of single cells are
/// small compared with the residual stream, which has 8 bits.
const MOST: [(&str, [f64; 2]); 15] = [
    ("activation patching mlp_post", [0.18, 0.28]),
    ("activation patching head_pattern@cell", [0.13, 0.19]),
    ("activation patching", [0.077, 0.12]),
    ("attribution patching", [0.045, 0.11]),
    ("integrated gradients", [0.026, 0.047]),
    ("ablation", [0.024, 0.062]),
    ("logit attribution", [0.022, 0.059]),
    (", to head_q:", [0.12, 0.68]),
    ("path patching", [0.052, 0.27]),
    ("head edges", [0.036, 0.044]),
    ("attention attribution", [0.035, 0.043]),
    ("groups", [0.033, 0.074]),
    ("interpolation", [0.021, 0.044]),
    ("backup heads", [0.017, 0.021]),
    ("copy suppression", [0.0062, 0.021]),
];

#[test]
fn bfloat16_effects_are_as_near_float32_as_8_bits_allow() {
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for fixture in Fixture::all().iter().filter(|fixture| fixture.is_own()) {
        let processing = WeightProcessing::default();
        let model: Transformer<Tracked> = fixture.model(processing);
        let pairs = fixture.pairs(&model);
        let random = |seed| Transformer::random(model.config(), seed, &Default::default()).processed(processing);
        for model in (0..4).map(random).chain([model.clone()]) {
            for (name, error) in errors(&model, &pairs) {
                found.entry(name).or_default().push(error);
            }
        }
        let model = model.to_precision(Precision::BFloat16).valid();
        let names: Vec<Vec<usize>> = pairs.pairs().iter().map(|_| vec![1, 2]).collect();
        let copied = copy_scores(&model, &pairs.clean(), &names, CopyNorms::With, &Execution::default()).unwrap();
        assert!(copied.positive.iter().any(|score| *score > 0.0), "{}: {:?}", fixture.name, copied.positive);
    }
    for (name, mut errors) in found {
        errors.sort_by(f64::total_cmp);
        let [median, largest] = [errors.len() / 2, errors.len() - 1].map(|i| errors[i]);
        let (_, [middle, most]) = MOST.iter().find(|(kind, _)| name.contains(kind)).expect("a bound for each method");
        assert!(
            median <= *middle && largest <= *most,
            "{name}: median {median:.4}, largest {largest:.4} of {errors:.4?}"
        );
    }
}
