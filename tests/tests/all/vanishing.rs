//! Vanishing gradients and numbers that are not finite are refused, or a warning names the prompts.

use std::collections::BTreeSet;

use burn::backend::Flex;
use burn::module::{AutodiffModule, Module};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use rewire_analysis::AnalysisError;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attention_attribution, attribute_groups, attribution_patching,
    edge_attribution,
};
use rewire_analysis::integrated::{IntegratedGradientsOptions, integrated_gradients};
use rewire_analysis::node::{Component, Node, NodeKind};
use rewire_analysis::patching::{ablate_groups, ablation, activation_patching, screen_then_verify};
use rewire_analysis::run::{Direction, Execution, Intervention, clean_logits};
use rewire_analysis::stats::Warning;
use rewire_hooks::{ActivationCache, HookPoint, Site};
use rewire_model::TransformerConfig;
use rewire_tasks::{AtClean, KlDivergence, LogitDiff, Metric, Reads};
use rewire_tests::asked;

use super::zeros::{Times, demo_shaped, direction, model};

/// The squared distance of a logit difference from its clean value: a metric that is at its minimum
/// on the clean run and does not declare it. On the prompts in `elsewhere` it is the logit
/// difference itself.
struct Squared {
    of: LogitDiff,
    clean: Vec<f32>,
    elsewhere: BTreeSet<usize>,
}

impl Metric for Squared {
    fn name(&self) -> &'static str {
        "squared"
    }

    fn reads(&self) -> Reads {
        self.of.reads()
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let value = self.of.evaluate(logits, prompts);
        let of = |number: &dyn Fn(usize) -> f32| {
            let numbers: Vec<f32> = prompts.iter().map(|&prompt| number(prompt)).collect();
            Tensor::<B, 1>::from_floats(numbers.as_slice(), &value.device())
        };
        let straight = of(&|prompt| f32::from(u8::from(self.elsewhere.contains(&prompt))));
        let distance = value.clone() - of(&|prompt| self.clean[prompt]);
        value * straight.clone() + distance.clone() * distance * (straight * -1.0 + 1.0)
    }
}

/// The amount by which a logit difference exceeds a thousand: 0 on both runs, with a gradient of 0.
struct Hinge(LogitDiff);

impl Metric for Hinge {
    fn name(&self) -> &'static str {
        "hinge"
    }

    fn reads(&self) -> Reads {
        self.0.reads()
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        relu(self.0.evaluate(logits, prompts) - 1e3)
    }
}

/// A metric that is 1 for all logits.
struct Blind(LogitDiff);

impl Metric for Blind {
    fn name(&self) -> &'static str {
        "blind"
    }

    fn reads(&self) -> Reads {
        self.0.reads()
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        Tensor::ones([prompts.len()], &logits.device())
    }
}

#[test]
fn every_gradient_method_refuses_a_kl_divergence_at_its_minimum() {
    let pairs = demo_shaped();
    let model = model(&TransformerConfig::gpt2(2, 3, 24, 30, 16), 0);
    let reference = clean_logits(&model.valid(), &pairs, 3).unwrap();
    let kl = KlDivergence::new(&pairs, &reference);
    assert_eq!(kl.at_clean(), AtClean::Stationary);
    let heads = [NodeKind::all(Component::HeadZ)];
    let refused = |error: AnalysisError, method: &str, words: &str| {
        assert!(matches!(error, AnalysisError::Stationary { metric: "kl", .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(method) && message.contains(words), "{message}");
    };
    let other = "use the denoising direction";
    refused(
        attribution_patching(&model, asked(&pairs, &kl), &heads, Direction::Noising, &Execution::default())
            .unwrap_err(),
        "attribution patching",
        other,
    );
    refused(
        screen_then_verify(&model, asked(&pairs, &kl), &heads, 2, Direction::Noising, &Execution::default())
            .unwrap_err(),
        "attribution patching",
        other,
    );
    let group = [vec![Node::new(0, Component::HeadZ)]];
    refused(
        attribute_groups(&model, asked(&pairs, &kl), &group, Direction::Noising, &Execution::default()).unwrap_err(),
        "attribution patching",
        other,
    );
    let paths = EdgeAttributionOptions { norm: NormJacobian::Exact, reduce: Reduce::Mean };
    refused(
        edge_attribution(&model, asked(&pairs, &kl), paths, Direction::Noising, &Execution::default()).unwrap_err(),
        "attribution patching",
        other,
    );
    // Attention attribution always uses the clean run.
    let error = attention_attribution(&model, asked(&pairs, &kl), &Execution::default()).unwrap_err();
    refused(error, "attention attribution", "use integrated gradients");
    // On the corrupted run, and along a line from the clean run, the gradient is not 0.
    let found =
        attribution_patching(&model, asked(&pairs, &kl), &heads, Direction::Denoising, &Execution::default()).unwrap();
    assert!(found.effects[0].values.iter().any(|v| v.abs() > 1e-3));
    assert_eq!((found.vanished.as_slice(), found.warnings()), (&[][..], vec![]));
    let integral = IntegratedGradientsOptions { tolerance: 10.0, ..IntegratedGradientsOptions::default() };
    let found = integrated_gradients(&model, asked(&pairs, &kl), &heads, &integral, &Execution::default()).unwrap();
    assert!(found.outcome.effects[0].values.iter().any(|v| v.abs() > 1e-3));
    // With another reference the gradient on the clean run is not 0.
    let far: Vec<Vec<f32>> = reference.iter().map(|row| row.iter().rev().copied().collect()).collect();
    let far = KlDivergence::from_reference(&pairs, &far);
    let found =
        attribution_patching(&model, asked(&pairs, &far), &heads, Direction::Noising, &Execution::default()).unwrap();
    assert!(found.effects[0].values.iter().any(|v| v.abs() > 1e-3));
}

#[test]
fn gradients_of_exactly_0_are_refused() {
    let pairs = demo_shaped();
    let heads = [NodeKind::all(Component::HeadZ)];
    let model = model(&TransformerConfig::neox(2, 3, 24, 30, 16), 0);
    let hinge = Hinge(LogitDiff::new(&pairs));
    for noising in [true, false] {
        let error =
            attribution_patching(&model, asked(&pairs, &hinge), &heads, direction(noising), &Execution::default())
                .unwrap_err();
        assert!(matches!(error, AnalysisError::GradientVanishes { metric: "hinge" }), "{error}");
        let error = attention_attribution(&model, asked(&pairs, &hinge), &Execution::default()).unwrap_err();
        assert!(error.to_string().contains("is 0 on all prompts"), "{error}");
    }
}

#[test]
fn vanishing_gradients_are_reported_per_prompt() {
    let pairs = demo_shaped();
    let heads = [NodeKind::all(Component::HeadZ)];
    for seed in 0..5 {
        let model = model(&TransformerConfig::neox(2, 3, 24, 30, 16), seed);
        let of = LogitDiff::new(&pairs);
        let plain =
            activation_patching(&model.valid(), asked(&pairs, &of), &heads, Direction::Noising, &Execution::default())
                .unwrap()
                .baselines;
        let elsewhere = BTreeSet::from([1, 3, 4]);
        let squared = Squared { of, clean: plain.clean.clone(), elsewhere: elsewhere.clone() };
        let found =
            attribution_patching(&model, asked(&pairs, &squared), &heads, Direction::Noising, &Execution::default())
                .unwrap();
        // On prompts whose metric changes, the gradient is rounding compared with that change.
        let moved = |prompt: &usize| (plain.clean[*prompt] - plain.corrupted[*prompt]).abs() > 0.1;
        let expected: Vec<usize> = (0..8).filter(|p| !elsewhere.contains(p)).filter(moved).collect();
        assert!(!expected.is_empty(), "seed {seed} moves nothing");
        assert!(
            expected.iter().all(|prompt| found.vanished.contains(prompt)),
            "{:?} lacks some of {expected:?}",
            found.vanished
        );
        assert!(found.vanished.iter().all(|prompt| !elsewhere.contains(prompt)), "{:?}", found.vanished);
        assert_eq!(found.warnings(), [Warning::GradientVanishes { prompts: found.vanished.clone(), of: 8 }]);
        // On the corrupted run the same metric has a gradient.
        let found =
            attribution_patching(&model, asked(&pairs, &squared), &heads, Direction::Denoising, &Execution::default())
                .unwrap();
        assert!(found.vanished.iter().all(|prompt| !moved(prompt)), "{:?}", found.vanished);
    }
}

#[test]
fn numbers_that_are_not_finite_are_reported_with_prompt_and_layer() {
    let pairs = demo_shaped();
    let config = TransformerConfig::gpt2(2, 3, 24, 30, 16);
    let heads = [NodeKind::all(Component::HeadZ)];
    let broken = model(&TransformerConfig { norm_eps: -1e3, ..config.clone() }, 0);
    let blind = Blind(LogitDiff::new(&pairs));
    let error =
        activation_patching(&broken.valid(), asked(&pairs, &blind), &heads, Direction::Noising, &Execution::default())
            .unwrap_err();
    let message = error.to_string();
    assert!(message.contains("the metric `blind` on the clean run is NaN for prompt 0"), "{message}");
    assert!(message.contains("`blocks.0.ln1.hook_scale`"), "{message}");

    // A patch that overflows: the error names the node. Only prompt 5 gets enormous values.
    let whole = model(&config, 0).valid();
    // The given values overflow, or their squares do, which a norm would hide.
    for (size, prompt_batch) in [(3e38, 8), (3e38, 2), (1e30, 8), (1e30, 2)] {
        let z = |layer: usize| {
            let mut values = vec![0.0_f32; 8 * 15 * 3 * 8];
            values[5 * 15 * 24 + 14 * 24 + 8..][..8].fill(if layer == 1 { size } else { 0.0 });
            Tensor::<Flex, 4>::from_data(burn::tensor::TensorData::new(values, [8, 15, 3, 8]), &Default::default())
        };
        let given = (0..2).fold(ActivationCache::new(), |cache, l| cache.with(HookPoint::block(l, Site::Z), z(l)));
        let by = Intervention::Fixed(given);
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { prompt_batch, ..Execution::default() };
        let head = [vec![Node::new(1, Component::HeadZ).unit(1)]];
        let errors = [
            ablation(&whole, asked(&pairs, &metric), &heads, &by, &execution).unwrap_err(),
            ablate_groups(&whole, asked(&pairs, &metric), &head, &by, &execution).unwrap_err(),
        ];
        for error in errors {
            let AnalysisError::NotFinite { prompt, .. } = &error else { panic!("{error}") };
            assert_eq!(*prompt, Some(5));
            assert!(error.to_string().contains("head_z:L1H1 replaced"), "{error}");
        }
    }
}

#[test]
fn an_overflowing_residual_stream_is_an_error_even_if_the_metric_is_finite() {
    // A norm with an infinite scale gives 0, which is finite, so only the scale shows the overflow.
    let pairs = demo_shaped();
    let model = model(&TransformerConfig::gpt2(2, 3, 24, 30, 16), 0);
    let metric = LogitDiff::new(&pairs);
    let huge = (0..2).fold(model.valid(), |model, _| model.map(&mut Times(1e10)));
    let heads = [NodeKind::all(Component::HeadZ)];
    let error = activation_patching(&huge, asked(&pairs, &metric), &heads, Direction::Noising, &Execution::default())
        .unwrap_err();
    assert!(matches!(error, AnalysisError::NotFinite { first: Some(_), .. }), "{error}");
}
