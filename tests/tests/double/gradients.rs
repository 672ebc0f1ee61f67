//! Compares gradients at every hook point with central finite differences, in float64 so that the
//! differences are exact enough.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use burn_ndarray::NdArray;
use rewire_analysis::integrated::{
    IntegratedGradientsOptions, LineScope, Quadrature, Rule, integrated_gradients, interpolation_curves,
};
use rewire_analysis::node::{Component, Node, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, Intervention};
use rewire_hooks::{GradientProbes, Hook, HookPoint, Recorder};
use rewire_model::{Activation, Architecture, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
use rewire_tests::asked;

type Double = NdArray<f64>;

/// Adds `step` times a fixed direction at one point.
struct Nudge {
    point: HookPoint,
    step: f64,
}

/// Returns a fixed direction without structure.
fn direction(len: usize) -> Vec<f64> {
    (0..len).map(|i| (1.7 * i as f64 + 0.3).sin()).collect()
}

impl<B: Backend> Hook<B> for Nudge {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        if point != self.point {
            return activation;
        }
        let dims = activation.dims();
        let along = TensorData::new(direction(dims.iter().product()), dims);
        let along = Tensor::<B, D>::from_data(along, &activation.device());
        activation + along * self.step
    }
}

/// Returns a loss that depends nonlinearly on every logit at every position.
fn loss<B: Backend>(model: &Transformer<B>, hook: impl Hook<B>) -> Tensor<B, 1> {
    let tokens = model.tokens(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6, 5, 3]]).unwrap();
    let logits = model.forward(Run::tokens(tokens), hook).unwrap();
    (logits * 0.5).sin().sum()
}

#[test]
fn gradients_match_finite_differences_at_every_hook_point() {
    let gpt2 = TransformerConfig::gpt2(2, 2, 16, 11, 8);
    let by_layer = TransformerConfig { scores_by_inverse_layer: true, ..gpt2.clone() };
    // Differences across the kink of ReLU are not its gradient.
    let smooth = |config: TransformerConfig| match config.activation {
        Activation::Relu => TransformerConfig { activation: Activation::Gelu, ..config },
        _ => config,
    };
    let families = Architecture::ALL.map(TransformerConfig::tiny).map(smooth);
    for config in [gpt2, by_layer, TransformerConfig::neox(2, 2, 16, 11, 8)].into_iter().chain(families) {
        let device = Default::default();
        let model = Transformer::<Autodiff<Double>>::random(&config, 3, &device);
        let inner = model.valid();

        let mut recorder = Recorder::<Double>::all();
        loss(&inner, &mut recorder);
        let points: Vec<HookPoint> = recorder.into_cache().points().collect();

        let mut probes = GradientProbes::all();
        let value = loss(&model, &mut probes);
        let gradients = probes.gradients(&value);
        assert_eq!(gradients.points().collect::<Vec<_>>(), points, "not every point was probed");

        for point in points {
            let gradient = gradients.any(point).unwrap();
            let gradient = gradient.reshape([gradient.dims().iter().product()]);
            let gradient: Vec<f64> = gradient.into_data().iter::<f64>().collect();
            let analytic: f64 = gradient.iter().zip(direction(gradient.len())).map(|(g, d)| g * d).sum();
            let step = 1e-5;
            let at = |step: f64| loss(&inner, Nudge { point, step }).into_data().iter::<f64>().sum::<f64>();
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            let size = gradient.iter().map(|g| g.abs()).sum::<f64>().max(1e-3);
            let error = (analytic - numeric).abs() / size;
            // The largest measured error is 7e-9.
            assert!(error < 4e-8, "{:?} {point}: {analytic} but differences give {numeric}", config.architecture);
            assert!(gradient.iter().any(|g| *g != 0.0), "{point} has no gradient");
        }
    }
}

/// Returns two pairs, each with prompts that differ in one token.
fn pairs() -> PromptPairs {
    let pair = |clean: &[u32], corrupted: &[u32]| PromptPair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        answers: vec![7],
        wrong_answers: vec![2],
    };
    PromptPairs::new(vec![pair(&[1, 2, 3, 4], &[1, 9, 3, 4]), pair(&[5, 6, 7, 8], &[5, 6, 1, 8])]).unwrap()
}

#[test]
fn integrands_match_the_slopes_of_interpolation_curves() {
    let grouped = TransformerConfig { key_value_heads: Some(1), ..TransformerConfig::llama(3, 2, 16, 11, 8) };
    let gemma = TransformerConfig { n_layers: 3, ..TransformerConfig::tiny(Architecture::Gemma2) };
    for config in [TransformerConfig::gpt2(3, 2, 16, 11, 8), TransformerConfig::neox(3, 2, 16, 11, 8), grouped, gemma] {
        let model = Transformer::<Autodiff<Double>>::random(&config, 5, &Default::default());
        let pairs = pairs();
        let metric = LogitDiff::new(&pairs);
        let execution = Execution::default();
        // One quadrature node in the middle gives the integrand there.
        let middle = Quadrature { rule: Rule::RiemannMiddle, steps: 1 };
        let step = 1.0 / 256.0;
        let places: Vec<f64> = [-2.0, -1.0, 1.0, 2.0].iter().map(|i| 0.5 + i * step).collect();
        for baseline in [Intervention::Resample, Intervention::Zero] {
            for (scope, component) in [
                (LineScope::Node, Component::HeadZ),
                (LineScope::Layer, Component::HeadZ),
                (LineScope::Layer, Component::MlpPost),
            ] {
                let tolerance = f64::INFINITY;
                let integral = IntegratedGradientsOptions {
                    quadrature: middle.into(),
                    baseline: baseline.clone(),
                    scope,
                    tolerance,
                    ..IntegratedGradientsOptions::default()
                };
                let kinds = [NodeKind::all(component)];
                let found =
                    integrated_gradients(&model, asked(&pairs, &metric), &kinds, &integral, &execution).unwrap();
                for layer in 0..config.n_layers {
                    let whole = Node::new(layer, component);
                    let nodes = match scope {
                        LineScope::Layer => vec![whole],
                        LineScope::Node => (0..config.n_heads).map(|head| whole.clone().unit(head)).collect(),
                    };
                    let curves =
                        interpolation_curves(&model.valid(), &pairs, &metric, &nodes, &places, &baseline, &execution)
                            .unwrap();
                    for (unit, prompt) in
                        (0..nodes.len()).flat_map(|unit| (0..pairs.len()).map(move |prompt| (unit, prompt)))
                    {
                        let at = |place: usize| f64::from(curves.values[[prompt, unit, place]]);
                        let numeric = (8.0 * (at(2) - at(1)) - (at(3) - at(0))) / (12.0 * step);
                        let of_layer = found.outcome.effects[0].values.index_axis(ndarray::Axis(0), prompt);
                        let of_layer = of_layer.index_axis(ndarray::Axis(0), layer);
                        let analytic = match scope {
                            LineScope::Layer => of_layer.iter().map(|v| f64::from(*v)).sum::<f64>(),
                            LineScope::Node => f64::from(of_layer[[unit]]),
                        };
                        let error = (numeric - analytic).abs();
                        // Metrics are float32, so slopes over such steps have errors of about 1e-5.
                        assert!(
                            error < 1e-4 * (1.0 + numeric.abs()),
                            "{} {component} {layer}: {analytic}, not {numeric}",
                            baseline.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn one_quadrature_node_is_exact_in_a_linear_model() {
    // With this epsilon the final norm divides by a nearly constant number (to a few
    // ten-thousandths), and in a parallel block nothing else follows the last layer. A larger
    // epsilon would leave effects below the rounding of the metric.
    let config = TransformerConfig { norm_eps: 1e4, ..TransformerConfig::neox(2, 2, 16, 11, 8) };
    let model = Transformer::<Autodiff<Double>>::random(&config, 5, &Default::default());
    let pair =
        PromptPair { clean: vec![1, 2, 3, 4], corrupted: vec![9, 2, 7, 5], answers: vec![7], wrong_answers: vec![2] };
    let pairs = PromptPairs::new(vec![pair]).unwrap();
    let metric = LogitDiff::new(&pairs);
    let execution = Execution::default();
    let kinds = [Component::HeadResult, Component::MlpPost].map(NodeKind::all);
    let exact =
        activation_patching(&model.valid(), asked(&pairs, &metric), &kinds, Direction::Noising, &execution).unwrap();
    for rule in [Rule::RiemannLeft, Rule::RiemannRight, Rule::GaussLegendre] {
        let quadrature = Quadrature { rule, steps: 1 };
        let integral = IntegratedGradientsOptions {
            quadrature: quadrature.into(),
            tolerance: 1e-4,
            panels: 1,
            ..IntegratedGradientsOptions::default()
        };
        let found = integrated_gradients(&model, asked(&pairs, &metric), &kinds, &integral, &execution).unwrap();
        for (kind, effects) in found.outcome.effects.iter().enumerate() {
            let last = |values: &ndarray::ArrayD<f32>| values.index_axis(ndarray::Axis(1), 1).to_owned();
            let (along, patched) = (last(&effects.values), last(&exact.effects[kind].values));
            let size = along.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!(size > 0.0);
            // Metrics are float32, so their differences have errors of about 1e-7 of the metrics.
            let noise = 5e-4 * size + 2e-7 * exact.baselines.clean[0].abs();
            assert!(noise < size / 50.0, "{rule} {}: {size} says nothing beside {noise}", effects.kind);
            for (a, b) in along.iter().zip(&patched) {
                assert!((a - b).abs() <= noise, "{rule} {}: {a} is not {b}", effects.kind);
            }
            let gap = last(&found.completeness[kind].gap)[[0]];
            assert!(gap.abs() <= noise, "{rule} {}: a gap of {gap} of {size}", effects.kind);
        }
    }
}
