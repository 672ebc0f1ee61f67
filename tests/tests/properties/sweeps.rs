//! Compares the sweep engine with one whole forward per patch, and tests groups, screening and
//! resumed sweeps, on random models and pairs.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, Dimension};
use proptest::prelude::*;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attribute_groups, attribution_patching, attribution_patching_with_edges,
};
use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::patching::{activation_patching, patch_groups, screen_then_verify};
use rewire_analysis::run::{Direction, Execution, LayerBatching};
use rewire_model::{QueryKeyNorms, ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogProbability, LogitDiff, Metric, PromptPairs, Reads};
use rewire_tests::asked;
use rewire_tests::compare::{assert_within, rounding};
use rewire_tests::memory::Memory;
use rewire_tests::random::{any_answers, any_config, any_family, any_pairs, with_whole_answers};

const COMPONENTS: [Component; 12] = [
    Component::ResidPre,
    Component::ResidMid,
    Component::ResidPost,
    Component::AttnOut,
    Component::MlpOut,
    Component::HeadQ,
    Component::HeadK,
    Component::HeadV,
    Component::HeadZ,
    Component::HeadResult,
    Component::HeadPattern,
    Component::MlpPost,
];

pub(crate) fn model<B: Backend>(config: &TransformerConfig, seed: u64) -> Transformer<B> {
    Transformer::random(config, seed, &Default::default())
}

/// Returns the direction. Effects stay on the scale of the metric, because random pairs may have no
/// difference to normalize by.
fn direction(noising: bool) -> Direction {
    if noising { Direction::Noising } else { Direction::Denoising }
}

fn components(config: &TransformerConfig) -> impl Iterator<Item = Component> + '_ {
    COMPONENTS.into_iter().filter(|c| !config.parallel_block || *c != Component::ResidMid)
}

/// Marks a position in each prompt.
fn marked(pairs: PromptPairs, mark: usize) -> PromptPairs {
    let marks = (0..pairs.len()).map(|p| (mark + p) % (pairs.end(p) + 1)).collect();
    pairs.with_marked_positions(marks).unwrap()
}

/// Returns the tolerance for `expected` effects: differences of a metric are as exact as its size
/// allows.
fn tolerance<B: Backend>(baselines: &rewire_analysis::Baselines, expected: &ArrayD<f32>) -> f32 {
    let metrics = baselines.clean.iter().chain(&baselines.corrupted).chain(expected);
    rounding::<B>() * metrics.filter(|v| v.is_finite()).fold(1.0_f32, |m, v| m.max(v.abs()))
}

/// Draws the numbers that define a node of any component and position, modulo the sizes of the
/// model and the pairs.
fn any_node() -> impl Strategy<Value = (usize, usize, Option<usize>, usize, usize)> {
    (0_usize..12, 0_usize..4, prop::option::of(0_usize..48), 0_usize..4, 0_usize..8)
}

fn node(
    (component, layer, unit, place, position): (usize, usize, Option<usize>, usize, usize),
    config: &TransformerConfig,
    pairs: &PromptPairs,
) -> Node {
    let all: Vec<Component> = components(config).collect();
    let component = all[component % all.len()];
    let unit = match component {
        Component::MlpPost => unit.map(|u| u % config.d_mlp),
        kind if NodeKind::all(kind).is_of_heads() => unit.map(|u| u % config.heads_at(NodeKind::all(kind).site())),
        _ => None,
    };
    let at = position % pairs.width();
    let positions = match (place, component) {
        (0, _) => Positions::All,
        (1, _) => Positions::One(at),
        (2, Component::HeadPattern) => Positions::Cell { dest: at, src: position / 2 % pairs.width() },
        _ => Positions::Each((0..pairs.len()).map(|p| position % (pairs.end(p) + 1)).collect()),
    };
    Node { layer: layer % config.n_layers, component, unit, positions }
}

/// A logit difference at another position of each prompt.
pub(crate) struct Elsewhere {
    pub(crate) of: LogitDiff,
    pub(crate) read: Vec<usize>,
}

impl Metric for Elsewhere {
    fn name(&self) -> &'static str {
        "elsewhere"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.read.clone(), ..self.of.reads() }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        self.of.evaluate(logits, prompts)
    }
}

/// Returns the probability of each token after a prompt.
fn next_token<B: Backend>(model: &Transformer<B>, prompt: &[u32]) -> Vec<f64> {
    let last = Readout { positions: ReadPositions::Each(vec![prompt.len() - 1]), columns: None };
    let run = Run::tokens(model.tokens(&[prompt.to_vec()]).unwrap()).with_readout(last);
    let logits: Vec<f64> = model.forward(run, ()).unwrap().into_data().iter::<f64>().collect();
    let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits.iter().map(|logit| logit.exp() / total).collect()
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
    fn activation_patching_equals_the_reference(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(), budget in 1_usize..200,
        by in 0_usize..4, mark in 0_usize..8, workers in 1_usize..4, together in any::<bool>(),
    ) {
        let pairs = marked(pairs, mark);
        let model = model::<Grad>(&config, seed).valid();
        let metric = LogitDiff::new(&pairs);
        let by = [By::All, By::Position, By::Marked, By::Cell][by];
        // All kinds are in one sweep, so that their patches share passes.
        let kinds: Vec<NodeKind> = components(&config)
            .filter(|c| by != By::Cell || *c == Component::HeadPattern)
            .filter(|c| by == By::All || *c != Component::MlpPost)
            .map(|component| NodeKind { component, by })
            .collect();
        let fast = Execution { token_budget: if together { 8 * budget } else { budget }, prompt_batch: 1 + budget % 3, workers: Some(workers),
            layers: Some(if together { LayerBatching::AllLayers } else { LayerBatching::PerLayer }), ..Execution::default() };
        let slow = Execution::reference();
        let found = activation_patching(&model, asked(&pairs, &metric), &kinds, direction(noising), &fast).unwrap();
        let expected = activation_patching(&model, asked(&pairs, &metric), &kinds, direction(noising), &slow).unwrap();
        let baselines = expected.baselines;
        for (found, expected) in found.effects.iter().zip(&expected.effects) {
            let tolerance = tolerance::<Plain>(&baselines, &expected.values);
            assert_within(&found.values, &expected.values, tolerance, &found.kind.to_string());
        }
    }

    #[test]
    fn metrics_may_read_any_position(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, read in prop::collection::vec(0_usize..8, 4),
        noising in any::<bool>(), by in 0_usize..2, together in any::<bool>(),
    ) {
        let model = model::<Grad>(&config, seed);
        let ends = pairs.ends();
        let metric = Elsewhere { of: LogitDiff::new(&pairs), read: (0..pairs.len()).map(|p| read[p] % (ends[p] + 1)).collect() };
        let by = [By::All, By::Position][by];
        let kinds: Vec<NodeKind> = components(&config).map(|component| NodeKind { component, by }).collect();
        let slow = Execution { reuse: rewire_analysis::run::Reuse::Nothing, ..Execution::default() };
        let layers = Some(if together { LayerBatching::AllLayers } else { LayerBatching::PerLayer });
        let fast = Execution { layers, ..Execution::default() };
        let found = activation_patching(&model.valid(), asked(&pairs, &metric), &kinds, direction(noising), &fast).unwrap();
        let expected = activation_patching(&model.valid(), asked(&pairs, &metric), &kinds, direction(noising), &slow).unwrap();
        let baselines = expected.baselines;
        for (found, expected) in found.effects.iter().zip(&expected.effects) {
            let tolerance = tolerance::<Plain>(&baselines, &expected.values);
            assert_within(&found.values, &expected.values, tolerance, &found.kind.to_string());
        }
        // A logit difference that is moved there is the same metric.
        let moved = LogitDiff::new(&pairs).at(metric.read.clone());
        let moved = activation_patching(&model.valid(), asked(&pairs, &moved), &kinds, direction(noising), &fast).unwrap();
        prop_assert_eq!(&moved.effects, &found.effects);
        // Nodes after the position that the metric reads have an attribution of 0.
        let estimates = attribution_patching(&model, asked(&pairs, &metric), &kinds, direction(noising), &Execution::default()).unwrap();
        for effects in estimates.effects.iter().filter(|e| e.kind.by == By::Position) {
            for (index, value) in effects.values.indexed_iter() {
                let (prompt, position) = (index[0], index[index.ndim() - 1]);
                prop_assert!(position <= metric.read[prompt] || *value == 0.0, "{}: {value} at {position}", effects.kind);
            }
        }
    }

    #[test]
    fn log_probabilities_of_whole_answers_equal_the_reference(
        config in any_family(), pairs in any_pairs(), answers in any_answers(), seed in 0_u64..1000, noising in any::<bool>(),
        budget in 1_usize..200, by in 0_usize..2, together in any::<bool>(),
        groups in prop::collection::vec(prop::collection::vec(any_node(), 1..4), 1..4),
    ) {
        let pairs = with_whole_answers(&pairs, &answers);
        let model = model::<Grad>(&config, seed).valid();
        let metric = LogProbability::new(&pairs);
        let by = [By::All, By::Position][by];
        let kinds: Vec<NodeKind> = components(&config)
            .filter(|c| by == By::All || *c != Component::MlpPost)
            .map(|component| NodeKind { component, by })
            .collect();
        let layers = Some(if together { LayerBatching::AllLayers } else { LayerBatching::PerLayer });
        let fast = Execution { token_budget: budget, prompt_batch: 1 + budget % 3, layers, ..Execution::default() };
        let slow = Execution::reference();
        let found = activation_patching(&model, asked(&pairs, &metric), &kinds, direction(noising), &fast).unwrap();
        let expected = activation_patching(&model, asked(&pairs, &metric), &kinds, direction(noising), &slow).unwrap();
        let baselines = expected.baselines;
        for (found, expected) in found.effects.iter().zip(&expected.effects) {
            let tolerance = tolerance::<Plain>(&baselines, &expected.values);
            assert_within(&found.values, &expected.values, tolerance, &found.kind.to_string());
        }
        let groups: Vec<Vec<Node>> =
            groups.into_iter().map(|group| group.into_iter().map(|n| node(n, &config, &pairs)).collect()).collect();
        let found = patch_groups(&model, asked(&pairs, &metric), &groups, direction(noising), &fast).unwrap();
        let expected = patch_groups(&model, asked(&pairs, &metric), &groups, direction(noising), &slow).unwrap();
        let expected = expected.values.into_dyn();
        let tolerance = tolerance::<Plain>(&found.baselines, &expected);
        assert_within(&found.values.into_dyn(), &expected, tolerance, &format!("{groups:?}"));
    }

    #[test]
    fn the_log_probability_of_an_answer_is_the_sum_over_runs_that_end_before_each_token(
        config in any_family(), pairs in any_pairs(), answers in any_answers(), seed in 0_u64..1000,
    ) {
        let model = model::<Grad>(&config, seed).valid();
        let whole = with_whole_answers(&pairs, &answers);
        let metric = LogProbability::new(&whole);
        let heads = [NodeKind::all(Component::HeadZ)];
        let found = activation_patching(&model, asked(&whole, &metric), &heads, Direction::Denoising, &Execution::default()).unwrap();
        for (number, (pair, (answer, other))) in pairs.pairs().iter().zip(&answers).enumerate() {
            for (prompt, found) in [(&pair.clean, found.baselines.clean[number]), (&pair.corrupted, found.baselines.corrupted[number])] {
                let mut expected = 0.0;
                for (i, &token) in answer.iter().enumerate() {
                    let probabilities = next_token(&model, &[prompt.as_slice(), &answer[..i]].concat());
                    let second = other.filter(|&other| i + 1 == answer.len() && other != token);
                    expected += [token].into_iter().chain(second).map(|t| probabilities[t as usize]).sum::<f64>().ln();
                }
                let error = (f64::from(found) - expected).abs();
                prop_assert!(error <= f64::from(rounding::<Plain>()) * expected.abs().max(1.0), "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn group_patching_equals_the_reference(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(), budget in 1_usize..200,
        groups in prop::collection::vec(prop::collection::vec(any_node(), 1..4), 1..4),
    ) {
        let model = model::<Grad>(&config, seed).valid();
        let metric = LogitDiff::new(&pairs);
        let groups: Vec<Vec<Node>> =
            groups.into_iter().map(|group| group.into_iter().map(|n| node(n, &config, &pairs)).collect()).collect();
        let fast = Execution { token_budget: budget, prompt_batch: 1 + budget % 3, ..Execution::default() };
        let slow = Execution::reference();
        let found = patch_groups(&model, asked(&pairs, &metric), &groups, direction(noising), &fast).unwrap();
        let expected = patch_groups(&model, asked(&pairs, &metric), &groups, direction(noising), &slow).unwrap();
        let expected = expected.values.into_dyn();
        let tolerance = tolerance::<Plain>(&found.baselines, &expected);
        assert_within(&found.values.into_dyn(), &expected, tolerance, &format!("{groups:?}"));
    }

    #[test]
    fn a_group_of_one_equals_its_node_and_all_heads_equal_their_layer(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, layer in 0_usize..4, head in 0_usize..3,
    ) {
        let (layer, head) = (layer % config.n_layers, head % config.n_heads);
        let model = model::<Grad>(&config, seed).valid();
        let metric = LogitDiff::new(&pairs);
        let z = |head: usize| Node::new(layer, Component::HeadZ).unit(head);
        let groups = [vec![z(head)], (0..config.n_heads).map(z).collect(), vec![Node::new(0, Component::ResidPre)]];
        let found = patch_groups(&model, asked(&pairs, &metric), &groups, Direction::Denoising, &Execution::default()).unwrap();
        let kinds = [NodeKind::all(Component::HeadZ), NodeKind::all(Component::AttnOut)];
        let alone = activation_patching(&model, asked(&pairs, &metric), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        let tolerance = tolerance::<Plain>(&found.baselines, &found.values.clone().into_dyn());
        for prompt in 0..pairs.len() {
            let source = found.baselines.clean[prompt] - found.baselines.corrupted[prompt];
            let expected = [alone.effects[0].values[[prompt, layer, head]], alone.effects[1].values[[prompt, layer]], source];
            for (group, expected) in expected.into_iter().enumerate() {
                let difference = (found.values[[prompt, group]] - expected).abs();
                prop_assert!(difference <= tolerance, "group {group}: differs by {difference}");
            }
        }
    }

    #[test]
    fn the_attribution_of_a_group_is_the_sum_over_its_nodes(
        config in any_config(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
        group in prop::collection::vec(any_node(), 1..4),
    ) {
        let model = model::<Grad>(&config, seed);
        let metric = LogitDiff::new(&pairs);
        let group: Vec<Node> = group.into_iter().map(|n| node(n, &config, &pairs)).collect();
        let layer = group[0].layer;
        let heads = (0..config.n_heads).map(|head| Node::new(layer, Component::HeadZ).unit(head)).collect();
        let mut groups = vec![group.clone(), heads, vec![Node::new(layer, Component::AttnOut)]];
        groups.extend(group.iter().map(|node| vec![node.clone()]));
        let found = attribute_groups(&model, asked(&pairs, &metric), &groups, direction(noising), &Execution::default()).unwrap();
        let kinds = [NodeKind::all(Component::AttnOut)];
        let layers = attribution_patching(&model, asked(&pairs, &metric), &kinds, direction(noising), &Execution::default()).unwrap();
        for prompt in 0..pairs.len() {
            let of = |group: usize| found.values[[prompt, group]];
            let tolerance = rounding::<Plain>() * found.values.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
            let sum: f32 = (3..groups.len()).map(of).sum();
            prop_assert!((of(0) - sum).abs() <= tolerance, "{} is not {sum}", of(0));
            prop_assert!((of(1) - of(2)).abs() <= tolerance, "heads {}, layer {}", of(1), of(2));
            let whole = layers.effects[0].values[[prompt, layer]];
            prop_assert!((of(2) - whole).abs() <= tolerance, "{} is not {whole}", of(2));
        }
    }

    #[test]
    fn attribution_at_a_marked_position_equals_that_position(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, mark in 0_usize..8,
    ) {
        let pairs = marked(pairs, mark);
        let model = model::<Grad>(&config, seed);
        let metric = LogitDiff::new(&pairs);
        for component in components(&config) {
            let kinds = [NodeKind { component, by: By::Marked }, NodeKind::by_position(component)];
            let found = attribution_patching(&model, asked(&pairs, &metric), &kinds, Direction::Denoising, &Execution::default()).unwrap();
            let [marked, positions] = [0, 1].map(|i| &found.effects[i].values);
            let position = ndarray::Axis(positions.ndim() - 1);
            for (prompt, mark) in pairs.marked_positions().unwrap().iter().enumerate() {
                let expected = positions.index_axis(position, *mark).index_axis(ndarray::Axis(0), prompt).to_owned();
                prop_assert_eq!(marked.index_axis(ndarray::Axis(0), prompt).to_owned(), expected);
            }
        }
    }

    #[test]
    fn screening_patches_the_largest_attributions_and_reports_the_skipped_ones(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, k in 1_usize..40,
    ) {
        let model = model::<Grad>(&config, seed);
        let metric = LogitDiff::new(&pairs);
        let kinds = [NodeKind::all(Component::HeadZ), NodeKind::by_position(Component::MlpOut)];
        let nodes = config.n_layers * (config.n_heads + pairs.width());
        let k = k.min(nodes);
        let found = screen_then_verify(&model, asked(&pairs, &metric), &kinds, k, Direction::Denoising, &Execution::default()).unwrap();
        let all = activation_patching(&model.valid(), asked(&pairs, &metric), &kinds, Direction::Denoising, &Execution::default()).unwrap();
        prop_assert_eq!((found.verified.len(), found.skipped), (k, nodes - k));
        let attribution: Vec<_> = found.attribution.effects.iter().map(|e| e.mean()).collect();
        let least = found.verified.iter().map(|p| attribution[p.kind][p.index.as_slice()].abs()).fold(f32::MAX, f32::min);
        match &found.largest_skipped {
            Some((place, value)) => {
                prop_assert!(!found.verified.contains(place));
                prop_assert_eq!(attribution[place.kind][place.index.as_slice()], *value);
                prop_assert!(value.abs() <= least);
            }
            None => prop_assert_eq!(k, nodes),
        }
        for (kind, (found_effects, all)) in found.exact.effects.iter().zip(&all.effects).enumerate() {
            let tolerance = tolerance::<Plain>(&found.exact.baselines, &all.values);
            for (index, value) in found_effects.values.indexed_iter() {
                let index = ndarray::Dimension::slice(&index).to_vec();
                let verified = found.verified.iter().any(|p| p.kind == kind && p.index == index[1..]);
                prop_assert_eq!(verified, !value.is_nan());
                prop_assert!(!verified || (value - all.values[index.as_slice()]).abs() <= tolerance);
            }
        }
    }

    #[test]
    fn resumed_sweeps_give_the_same_bits(
        config in any_config(), pairs in any_pairs(), seed in 0_u64..1000, lost in 0_usize..50, workers in 1_usize..3,
    ) {
        let model = model::<Grad>(&config, seed).valid();
        let metric = LogitDiff::new(&pairs);
        let kinds = [NodeKind::all(Component::HeadK), NodeKind::by_position(Component::ResidPost)];
        let memory = Memory::default();
        let kept = Execution { token_budget: 20, prompt_batch: 2, workers: Some(workers), checkpoint: &memory, ..Execution::default() };
        let whole = activation_patching(&model, asked(&pairs, &metric), &kinds, Direction::Noising, &kept).unwrap();
        prop_assert_eq!(memory.run(), memory.kept());
        let of_patching = memory.kept();
        prop_assert_eq!(memory.announced(), of_patching);
        let lost = memory.lose(lost);
        let again = activation_patching(&model, asked(&pairs, &metric), &kinds, Direction::Noising, &kept).unwrap();
        prop_assert_eq!(&again, &whole);
        prop_assert_eq!(memory.run(), lost);
        // Attribution resumes batch by batch, too, with its head edges.
        let config = TransformerConfig { key_value_heads: None, query_key_norms: QueryKeyNorms::None, ..config };
        let trained = Transformer::<Grad>::random(&config, seed, &Default::default());
        let paths = EdgeAttributionOptions { norm: NormJacobian::Exact, reduce: Reduce::PerPrompt };
        let attribution = |execution: &Execution| {
            attribution_patching_with_edges(&trained, asked(&pairs, &metric), &kinds, paths, Direction::Noising, execution).unwrap()
        };
        let kept_too = Execution { gradient_batch: 1, ..kept };
        let estimated = attribution(&kept_too);
        prop_assert_eq!(memory.run(), pairs.len());
        prop_assert_eq!(memory.announced(), of_patching + pairs.len());
        prop_assert_eq!(&attribution(&kept_too), &estimated);
        prop_assert_eq!(memory.run(), 0);
        prop_assert_eq!(&attribution(&Execution { checkpoint: &(), ..kept_too }), &estimated);
        let without = Execution { checkpoint: &(), ..kept };
        prop_assert_eq!(activation_patching(&model, asked(&pairs, &metric), &kinds, Direction::Noising, &without).unwrap(), whole);
    }
}
        }
    };
}

in_this_precision!(properties, 24, 12);
