//! Identities that hold for every model and every pair of prompts, tested on random ones.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, Axis as Dimension};
use proptest::prelude::*;
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution};
use rewire_hooks::{AnyMask, AnyRank, Axis, HookPoint, Patch, Recorder, ResidualStream, Site};
use rewire_model::{MlpKind, Prefix, ReadPositions, Readout, Run, Transformer, TransformerConfig, WeightProcessing};
use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs, Reads};
use rewire_tests::asked;
use rewire_tests::compare::{Tolerance, array, assert_within, rounding, scale};
use rewire_tests::random::{any_config, any_family, any_pairs};

/// Effects below this size are differences of metrics near 1 that cancel: float32 leaves noise of
/// about 1e-6 in them.
const SMALL: f32 = 0.1;

const HEAD_PARTS: [Component; 5] =
    [Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadZ, Component::HeadPattern];

fn model<B: Backend>(config: &TransformerConfig, seed: u64) -> Transformer<B> {
    Transformer::random(config, seed, &Default::default())
}

fn logits<B: Backend>(model: &Transformer<B>, prompts: &[Vec<u32>]) -> Tensor<B, 3> {
    model.forward(Run::tokens(model.tokens(prompts).unwrap()), ()).unwrap()
}

/// Returns every kind of node in a model.
fn all_kinds(config: &TransformerConfig) -> Vec<NodeKind> {
    let blocks = [Component::ResidPre, Component::ResidPost, Component::AttnOut, Component::MlpOut, Component::MlpPost];
    let mid = (!config.parallel_block).then_some(Component::ResidMid);
    let whole = blocks.into_iter().chain(HEAD_PARTS).chain(mid);
    let cells = NodeKind { component: Component::HeadPattern, by: By::Cell };
    whole.flat_map(|c| [NodeKind::all(c), NodeKind::by_position(c)]).chain([cells]).collect()
}

/// A linear combination of two metrics.
struct Combination {
    parts: [(LogitDiff, f32); 2],
}

impl Metric for Combination {
    fn name(&self) -> &'static str {
        "combination"
    }

    fn reads(&self) -> Reads {
        Reads { columns: None, ..self.parts[0].0.reads() }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let part = |(metric, factor): &(LogitDiff, f32)| {
            let columns: Vec<i32> = metric.reads().columns.unwrap().into_iter().map(|c| c as i32).collect();
            let columns = Tensor::<B, 1, burn::tensor::Int>::from_data(columns.as_slice(), &logits.device());
            metric.evaluate(logits.clone().select(1, columns), prompts) * *factor
        };
        part(&self.parts[0]) + part(&self.parts[1])
    }
}

/// Runs activation patching literally: one whole forward per node, nothing reused.
fn literal_activation_patching<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    kind: NodeKind,
    direction: Direction,
) -> ArrayD<f32> {
    fn patched<B: Backend>(
        model: &Transformer<B>,
        point: HookPoint,
        base: &[Vec<u32>],
        source: &AnyRank<B>,
        place: &[(Axis, usize)],
    ) -> Tensor<B, 3> {
        let inside = |index: &[usize]| {
            place.iter().all(|(axis, at)| index[point.axes().iter().position(|a| a == axis).unwrap()] == *at)
        };
        let mask = AnyMask::of(&source.dims(), &Default::default(), inside);
        let mut patch = Patch::new().replace_where(point, source.clone(), mask);
        let out = model.forward(Run::tokens(model.tokens(base).unwrap()), &mut patch).unwrap();
        patch.finish().unwrap();
        out
    }

    let (base, source) = match direction {
        Direction::Denoising => (pairs.corrupted(), pairs.clean()),
        Direction::Noising => (pairs.clean(), pairs.corrupted()),
    };
    let metric = LogitDiff::new(pairs);
    let prompts: Vec<usize> = (0..pairs.len()).collect();
    let evaluate = |logits: Tensor<B, 3>| -> Vec<f32> {
        let [batch, pos, vocab] = logits.dims();
        let rows = pairs.ends().iter().enumerate().map(|(b, e)| (b * pos + e) as i32).collect::<Vec<_>>();
        let columns: Vec<i32> = metric.reads().columns.unwrap().into_iter().map(|c| c as i32).collect();
        let device = Default::default();
        let read = logits
            .reshape([batch * pos, vocab])
            .select(0, Tensor::from_data(rows.as_slice(), &device))
            .select(1, Tensor::from_data(columns.as_slice(), &device));
        metric.evaluate(read, &prompts).into_data().iter::<f32>().collect()
    };
    let unpatched = evaluate(logits(model, &base));
    let mut recorder = Recorder::all();
    model.forward(Run::tokens(model.tokens(&source).unwrap()), &mut recorder).unwrap();
    let cache = recorder.into_cache();

    let config = model.config();
    let sizes: Vec<usize> = kind
        .axes()
        .iter()
        .map(|axis| match axis {
            Axis::Head => config.heads_at(kind.site()),
            Axis::DMlp => config.d_mlp,
            _ => pairs.width(),
        })
        .collect();
    let mut effects = ArrayD::zeros([&[pairs.len(), config.n_layers], sizes.as_slice()].concat());
    for layer in 0..config.n_layers {
        for flat in 0..sizes.iter().product::<usize>() {
            let mut rest = flat;
            let mut index = vec![0; sizes.len()];
            for d in (0..sizes.len()).rev() {
                index[d] = rest % sizes[d];
                rest /= sizes[d];
            }
            let place: Vec<_> = kind.axes().into_iter().zip(index.iter().copied()).collect();
            let point = HookPoint::block(layer, kind.site());
            let logits = patched(model, point, &base, cache.any(point).unwrap(), &place);
            for (prompt, value) in evaluate(logits).into_iter().enumerate() {
                effects[[&[prompt, layer], index.as_slice()].concat().as_slice()] = value - unpatched[prompt];
            }
        }
    }
    effects
}

/// Tests the properties on one backend.
macro_rules! properties {
    ($name:ident, $backend:ty, $cases:literal) => {
        mod $name {
            use super::*;

            type Plain = $backend;
            type Grad = Autodiff<Plain>;

proptest! {
    #![proptest_config(ProptestConfig { cases: $cases, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recording_changes_no_logit(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000) {
        let model = model::<Grad>(&config, seed).valid();
        let mut recorder = Recorder::all();
        let recorded = model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
        prop_assert_eq!(array(recorded), array(logits(&model, &pairs.clean())));
    }

    #[test]
    fn the_residual_stream_equals_the_sum_of_its_components(config in any_config(), pairs in any_pairs(), seed in 0_u64..1000) {
        let model = model::<Grad>(&config, seed).valid();
        let mut recorder = Recorder::all();
        model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
        let cache = recorder.into_cache();
        // The memory formula in the documentation.
        let TransformerConfig { d_model, d_mlp, n_heads, d_head, .. } = config;
        let shared = config.n_key_value_heads();
        let mut numbers = 7 * d_model + 2 * (n_heads + shared) * d_head + 2 * d_mlp + 2 * n_heads * pairs.width() + 2;
        numbers += usize::from(config.mlp == MlpKind::Gated) * d_mlp;
        numbers -= usize::from(config.parallel_block) * d_model;
        numbers += usize::from(config.is_rotary()) * (n_heads + shared) * d_head;
        let outside = (2 + usize::from(!config.is_rotary())) * d_model + 1;
        prop_assert_eq!(cache.bytes(), 4 * pairs.len() * pairs.width() * (config.n_layers * numbers + outside));

        let parts = cache.decomposed_residual().unwrap();
        let last = cache.block::<3>(config.n_layers - 1, Site::ResidPost).unwrap();
        let sum = array(parts.values).sum_axis(Dimension(0));
        assert_within(&sum, &array(last.clone()), rounding::<Plain>() * scale(&array(last.clone())), "sum of parts");

        let stages = cache.accumulated_residual(ResidualStream::BetweenBlocks).unwrap();
        prop_assert_eq!(stages.labels.len(), config.n_layers + 1);
        let final_post = array(stages.values).index_axis(Dimension(0), config.n_layers).to_owned();
        prop_assert_eq!(final_post, array(last));

        // Attention writes the sum of the head outputs and the output bias.
        let heads = array(cache.head_results(0, model.w_o(0)).unwrap()).sum_axis(Dimension(2));
        let with_bias = heads + array(model.b_o(0)).into_shape_with_order(ndarray::IxDyn(&[1, 1, config.d_model])).unwrap();
        let attn_out = array(cache.block::<3>(0, Site::AttnOut).unwrap());
        assert_within(&with_bias, &attn_out, rounding::<Plain>() * scale(&attn_out), "sum of heads");
    }

    #[test]
    fn a_run_from_a_cached_residual_stream_equals_the_whole_run(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, cut in 0_usize..8, layer in 0_usize..4) {
        let model = model::<Grad>(&config, seed).valid();
        let (cut, layer) = (cut.min(pairs.width() - 1), layer % config.n_layers);
        let mut recorder = Recorder::all();
        let whole = array(model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap());
        let cache = recorder.into_cache();
        let residual = cache.block::<3>(layer, Site::ResidPre).unwrap();
        let rest = residual.narrow(1, cut, pairs.width() - cut);
        let mut run = Run::from_residual(layer, rest);
        if cut > 0 {
            run = run.with_prefix(Prefix::from_cache(&cache, &config, cut).unwrap());
        }
        let resumed = array(model.forward(run.clone(), ()).unwrap());
        let expected = whole.slice_axis(Dimension(1), ndarray::Slice::from(cut..)).to_owned();
        assert_within(&resumed, &expected, rounding::<Plain>() * scale(&whole), "resumed logits");

        let readout = Readout { positions: ReadPositions::Each(vec![pairs.width() - 1; pairs.len()]), columns: Some(vec![3, 1]) };
        let read = array(model.forward(run.with_readout(readout), ()).unwrap());
        for prompt in 0..pairs.len() {
            for (i, column) in [3, 1].into_iter().enumerate() {
                let difference = (read[[prompt, 0, i]] - whole[[prompt, pairs.width() - 1, column]]).abs();
                prop_assert!(difference < rounding::<Plain>() * scale(&whole), "column {column}: {difference}");
            }
        }
    }

    #[test]
    fn weight_processing_keeps_the_log_probabilities(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, switches in any::<[bool; 4]>()) {
        let [fold_norm, center_writing_weights, center_unembed, fold_value_biases] = switches;
        let processing = WeightProcessing { fold_norm, center_writing_weights, center_unembed, fold_value_biases };
        let plain = model::<Grad>(&config, seed).valid();
        let [before, after] = [plain.clone(), plain.processed(processing)]
            .map(|model| array(log_softmax(logits(&model, &pairs.clean()), 2)));
        assert_within(&after, &before, rounding::<Plain>() * scale(&before), "log-probabilities");
    }

    #[test]
    fn padding_on_the_right_changes_nothing(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000) {
        let model = model::<Grad>(&config, seed).valid();
        let padded = array(logits(&model, &pairs.clean()));
        for (prompt, pair) in pairs.pairs().iter().enumerate() {
            let alone = array(logits(&model, std::slice::from_ref(&pair.clean)));
            let beside = padded.slice_axis(Dimension(0), ndarray::Slice::from(prompt..prompt + 1));
            let beside = beside.slice_axis(Dimension(1), ndarray::Slice::from(0..pair.clean.len())).to_owned();
            assert_within(&beside, &alone, rounding::<Plain>() * scale(&alone), "logits beside longer prompts");
        }
    }

    #[test]
    fn patching_the_embedding_gives_the_clean_run(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000) {
        let model = model::<Grad>(&config, seed).valid();
        let mut recorder = Recorder::filtered(|p| p == HookPoint::Embed);
        let clean = model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
        let embedded = recorder.into_cache().get::<3>(HookPoint::Embed).unwrap();
        let mut patch = Patch::new().replace(HookPoint::Embed, embedded);
        let patched = model.forward(Run::tokens(model.tokens(&pairs.corrupted()).unwrap()), &mut patch).unwrap();
        patch.finish().unwrap();
        prop_assert_eq!(array(patched), array(clean));
    }

    #[test]
    fn patching_a_run_with_itself_changes_nothing(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000) {
        let same = pairs.pairs().iter().map(|p| PromptPair { corrupted: p.clean.clone(), ..p.clone() }).collect();
        let same = PromptPairs::new(same).unwrap();
        let model = model::<Grad>(&config, seed);
        let metric = LogitDiff::new(&same);
        let kinds = all_kinds(&config);
        let exact = activation_patching(&model.valid(), asked(&same, &metric), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        let size = exact.baselines.clean.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
        for effects in exact.effects {
            let largest = scale(&effects.values);
            prop_assert!(largest < rounding::<Plain>() * size, "{}: {largest} of {size}", effects.kind);
        }
        let estimate = attribution_patching(&model, asked(&same, &metric), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        for effects in estimate.effects {
            prop_assert!(effects.values.iter().all(|v| *v == 0.0), "{}", effects.kind);
        }
    }

    #[test]
    fn activation_patching_equals_literal_forwards(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, kind in 0_usize..100, noising in any::<bool>(), budget in 1_usize..200) {
        let model = model::<Grad>(&config, seed).valid();
        let kinds = all_kinds(&config);
        let kind = kinds[kind % kinds.len()];
        let direction = if noising { Direction::Noising } else { Direction::Denoising };
        let execution = Execution { token_budget: budget, prompt_batch: 1 + budget % 3, ..Execution::default() };
        let outcome = activation_patching(&model, asked(&pairs, &LogitDiff::new(&pairs)), &[kind], direction, &execution).unwrap();
        let expected = literal_activation_patching(&model, &pairs, kind, direction);
        let size = outcome.baselines.clean.iter().chain(&outcome.baselines.corrupted).fold(1.0_f32, |m, v| m.max(v.abs()));
        let size = size.max(scale(&expected));
        assert_within(&outcome.effects[0].values, &expected, rounding::<Plain>() * size, &kind.to_string());
    }

    #[test]
    fn attributions_of_parts_sum_to_that_of_the_whole(config in any_config(), pairs in any_pairs(), seed in 0_u64..1000) {
        let model = model::<Grad>(&config, seed);
        let kinds = [
            NodeKind::all(Component::HeadZ),
            NodeKind::by_position(Component::HeadZ),
            NodeKind::all(Component::AttnOut),
            NodeKind::all(Component::HeadPattern),
            NodeKind { component: Component::HeadPattern, by: By::Cell },
            NodeKind::all(Component::MlpPost),
            NodeKind::all(Component::MlpOut),
        ];
        let found = attribution_patching(&model, asked(&pairs, &LogitDiff::new(&pairs)), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        let [z, z_pos, attn_out, pattern, cells, neurons, mlp_out] = [0, 1, 2, 3, 4, 5, 6].map(|i| found.effects[i].values.clone());
        let tolerance = rounding::<Plain>() * found.effects.iter().map(|e| scale(&e.values)).fold(SMALL, f32::max);
        assert_within(&z_pos.sum_axis(Dimension(3)), &z, tolerance, "positions of a head");
        assert_within(&z.sum_axis(Dimension(2)), &attn_out, tolerance, "heads of a layer");
        assert_within(&cells.sum_axis(Dimension(4)).sum_axis(Dimension(3)), &pattern, tolerance, "cells of a pattern");
        assert_within(&neurons.sum_axis(Dimension(2)), &mlp_out, tolerance, "neurons of a layer");
    }

    #[test]
    fn attribution_is_linear_in_the_metric(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, a in -3.0_f32..3.0, b in -3.0_f32..3.0) {
        let model = model::<Grad>(&config, seed);
        let other = pairs.pairs().iter().map(|p| PromptPair { answers: vec![(p.answers[0] + 5) % 17], wrong_answers: vec![(p.answers[0] + 6) % 17], ..p.clone() });
        let other = PromptPairs::new(other.collect()).unwrap();
        let metrics = [LogitDiff::new(&pairs), LogitDiff::new(&other)];
        let kinds = [NodeKind::by_position(Component::ResidPre), NodeKind::all(Component::HeadQ)];
        let [first, second] = metrics.each_ref().map(|m| attribution_patching(&model, asked(&pairs, m), &kinds, Direction::Noising, &Execution::default()).unwrap());
        let combined = Combination { parts: [(metrics[0].clone(), a), (metrics[1].clone(), b)] };
        let combined = attribution_patching(&model, asked(&pairs, &combined), &kinds, Direction::Noising, &Execution::default()).unwrap();
        // The gradient at a head's queries is what remains of the residual stream's gradient after
        // cancellation, so rounding is relative to the whole gradient.
        let size = first.effects.iter().chain(&second.effects).map(|e| scale(&e.values)).fold(SMALL, f32::max);
        for i in 0..kinds.len() {
            let expected = &first.effects[i].values * a + &second.effects[i].values * b;
            assert_within(&combined.effects[i].values, &expected, 2.0 * rounding::<Plain>() * size, "the combined metric");
        }
    }

    #[test]
    fn prompts_in_one_batch_do_not_affect_each_other(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000) {
        let model = model::<Grad>(&config, seed);
        let kinds = [NodeKind::all(Component::HeadZ)];
        let together = attribution_patching(&model, asked(&pairs, &LogitDiff::new(&pairs)), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        for prompt in 0..pairs.len() {
            let alone = PromptPairs::new(vec![pairs.pairs()[prompt].clone()]).unwrap();
            let alone = attribution_patching(&model, asked(&alone, &LogitDiff::new(&alone)), &kinds, Direction::Denoising, &Execution::default()).unwrap();
            let beside = together.effects[0].values.index_axis(Dimension(0), prompt).to_owned();
            let alone = alone.effects[0].values.index_axis(Dimension(0), 0).to_owned();
            assert_within(&beside, &alone, rounding::<Plain>() * scale(&alone).max(SMALL), "a prompt among others");
        }
    }

    #[test]
    fn attribution_is_exact_in_a_linear_model(pairs in any_pairs(), seed in 0_u64..1000) {
        // With an epsilon far above every variance the final norm divides by a constant. In a
        // parallel block nothing else follows the last layer's outputs before the logits.
        let config = TransformerConfig { norm_eps: 1e4, ..TransformerConfig::neox(2, 2, 16, 17, 12) };
        let model = model::<Grad>(&config, seed);
        let kinds = [Component::HeadZ, Component::AttnOut, Component::MlpOut, Component::ResidPost, Component::MlpPost].map(NodeKind::all);
        let metric = LogitDiff::new(&pairs);
        let exact = activation_patching(&model.valid(), asked(&pairs, &metric), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        let estimate = attribution_patching(&model, asked(&pairs, &metric), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        let metric = exact.baselines.clean.iter().chain(&exact.baselines.corrupted).fold(0.0_f32, |m, v| m.max(v.abs()));
        for (exact, estimate) in exact.effects.iter().zip(&estimate.effects) {
            let [exact, estimate] = [exact, estimate].map(|e| e.values.index_axis(Dimension(1), 1).to_owned());
            // The variance beside epsilon changes the metric by less than a thousandth.
            let tolerance = Tolerance::new(1e-3 * scale(&exact) + rounding::<Plain>() * metric, 0.0);
            assert_within(&estimate, &exact, tolerance, "a linear rest");
        }
    }
}
        }
    };
}

in_this_precision!(properties, 24, 12);
