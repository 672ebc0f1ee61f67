//! Compares the sweep engine with one whole forward per patch, and tests groups, screening and
//! resumed sweeps, on random models and pairs.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn_ndarray::NdArray;
use ndarray::{ArrayD, Dimension};
use proptest::prelude::*;
use rewire_analysis::AnalysisError;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attribute_groups, attribution_patching, attribution_patching_with_edges,
};
use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::patching::{activation_patching, activation_patching_cost, patch_groups, screen_then_verify};
use rewire_analysis::run::{Direction, Execution, LayerBatching, Question};
use rewire_model::{ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogProbability, LogitDiff, Metric, PairsError, PromptPair, PromptPairs, Reads, WholeAnswers};
use rewire_tests::asked;
use rewire_tests::compare::{assert_within, rounding, scale};
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

fn model<B: Backend>(config: &TransformerConfig, seed: u64) -> Transformer<B> {
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
struct Elsewhere {
    of: LogitDiff,
    read: Vec<usize>,
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
        let config = TransformerConfig { key_value_heads: None, query_key_norms: false, ..config };
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

properties!(float32, Flex, 24);
// In float64, computations that differ by rounding agree, because only the metrics are rounded to
// float32.
properties!(float64, NdArray<f64>, 12);

fn two_pairs() -> PromptPairs {
    let pair = PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 4, 3], answers: vec![5], wrong_answers: vec![6] };
    PromptPairs::new(vec![pair.clone(), pair]).unwrap()
}

#[test]
fn metrics_that_read_after_the_prompt_are_refused() {
    let model = model::<Autodiff<Flex>>(&TransformerConfig::gpt2(1, 2, 16, 17, 12), 0);
    let pairs = two_pairs();
    let metric = Elsewhere { of: LogitDiff::new(&pairs), read: vec![2, 3] };
    let heads = [NodeKind::all(Component::HeadZ)];
    let expected = "the metric reads position 3 of prompt 1, and the longest prompt has 3 tokens (prompts and positions \
                are counted from 0)";
    let refused = attribution_patching(
        &model,
        Question::new(&pairs, &metric),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert_eq!(refused.to_string(), expected);
    let refused = activation_patching(
        &model.valid(),
        Question::new(&pairs, &metric),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn a_whole_answer_of_one_token_gives_the_log_of_its_probability() {
    let model = model::<Flex>(&TransformerConfig::neox(2, 2, 16, 17, 12), 5);
    let pairs = two_pairs();
    let whole = |p: &PromptPair| WholeAnswers {
        clean: p.clean.clone(),
        corrupted: p.corrupted.clone(),
        answers: vec![p.answers.clone()],
    };
    let whole = PromptPairs::with_whole_answers(&pairs.pairs().iter().map(whole).collect::<Vec<_>>()).unwrap();
    let heads = [NodeKind::all(Component::HeadZ)];
    let (log, plain) = (LogProbability::new(&whole), rewire_tasks::Probability::new(&pairs));
    let run = Execution::default();
    let log = activation_patching(&model, asked(&whole, &log), &heads, Direction::Noising, &run).unwrap();
    let plain = activation_patching(&model, asked(&pairs, &plain), &heads, Direction::Noising, &run).unwrap();
    let all = |outcome: &rewire_analysis::Outcome| {
        let values = outcome.effects[0].values.clone();
        let base = outcome.baselines.clean.clone();
        values.indexed_iter().map(|(index, effect)| f64::from(effect + base[index[0]])).collect::<Vec<f64>>()
    };
    for (log, plain) in all(&log).into_iter().zip(all(&plain)) {
        assert!((log - plain.ln()).abs() < 1e-5, "{log} is not the log of {plain}");
    }
}

#[test]
fn a_metric_of_other_pairs_or_of_other_numbers_of_positions_is_refused() {
    let model = model::<Flex>(&TransformerConfig::gpt2(1, 2, 16, 17, 12), 0);
    let answers = |n: usize| WholeAnswers { clean: vec![1, 2], corrupted: vec![1, 3], answers: vec![vec![4; n]] };
    let [one, two] = [[3, 3].as_slice(), &[3]]
        .map(|of| PromptPairs::with_whole_answers(&of.iter().map(|&n| answers(n)).collect::<Vec<_>>()).unwrap());
    let metric = LogProbability::new(&one);
    let heads = [NodeKind::all(Component::HeadZ)];
    let refused =
        activation_patching(&model, asked(&two, &metric), &heads, Direction::Denoising, &Execution::default());
    assert!(matches!(refused, Err(AnalysisError::MetricOfOtherPairs { expected: 1, found: 2 })));
}

#[test]
fn nodes_outside_the_model_are_refused_by_name() {
    let model = model::<Autodiff<Flex>>(&TransformerConfig::neox(2, 2, 16, 17, 12), 0);
    let pairs = two_pairs();
    let metric = LogitDiff::new(&pairs);
    let refused = |groups: &[Vec<Node>]| {
        patch_groups(
            &model.valid(),
            Question::new(&pairs, &metric),
            groups,
            Direction::Denoising,
            &Execution::default(),
        )
        .unwrap_err()
        .to_string()
    };
    let z = || Node::new(0, Component::HeadZ);
    assert_eq!(refused(&[]), "no nodes were given; give at least one");
    assert_eq!(refused(&[vec![z()], vec![]]), "group 1 (counted from 0) has no nodes");
    let message = refused(&[vec![Node::new(2, Component::HeadZ).unit(1)]]);
    assert_eq!(
        message,
        "there is no head_z:L2H1: layer 2 is out of range (the model has 2 layers of 2 heads, counted from 0)"
    );
    assert_eq!(
        refused(&[vec![z().unit(2)]]),
        "there is no head_z:L0H2: head 2 is out of range (the model has 2 layers of 2 heads, counted from 0)"
    );
    let neuron = Node::new(1, Component::MlpPost).unit(64);
    assert_eq!(
        refused(&[vec![neuron]]),
        "there is no mlp_post:L1N64: neuron 64 is out of range (there are 64, counted from 0)"
    );
    let late = z().at(Positions::One(3));
    assert_eq!(
        refused(&[vec![late]]),
        "there is no head_z:L0@3: position 3 is out of range (there are 3, counted from 0)"
    );
    let each = z().at(Positions::Each(vec![1]));
    assert!(refused(&[vec![each]]).contains("positions for 1 prompts, and there are 2"));
    assert!(refused(&[vec![Node::new(0, Component::ResidMid)]]).contains("in parallel"));
    let cell = z().at(Positions::Cell { dest: 1, src: 0 });
    assert!(refused(&[vec![cell]]).contains("only attention patterns have cells"));
}

#[test]
fn meaningless_screens_and_marks_are_refused() {
    let model = model::<Autodiff<Flex>>(&TransformerConfig::gpt2(2, 2, 16, 17, 12), 0);
    let pairs = two_pairs();
    let metric = LogitDiff::new(&pairs);
    let heads = [NodeKind::all(Component::HeadZ)];
    let screen = |k| {
        screen_then_verify(
            &model,
            Question::new(&pairs, &metric),
            &heads,
            k,
            Direction::Denoising,
            &Execution::default(),
        )
        .unwrap_err()
    };
    assert!(matches!(screen(5), AnalysisError::TooManyNodes { k: 5, nodes: 4 }));
    assert!(matches!(screen(0), AnalysisError::NoNodes));
    let unmarked = NodeKind { component: Component::HeadZ, by: By::Marked };
    let refused = activation_patching(
        &model.valid(),
        Question::new(&pairs, &metric),
        &[unmarked],
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert!(refused.to_string().contains("mark no position"), "{refused}");
    assert_eq!(
        pairs.clone().with_marked_positions(vec![0, 3]),
        Err(PairsError::MarkOutside { pair: 1, mark: Some(3), len: 3 })
    );
    assert_eq!(pairs.with_marked_positions(vec![0]), Err(PairsError::MarkOutside { pair: 1, mark: None, len: 3 }));
}

#[test]
fn only_activations_that_can_change_are_computed() {
    // GPT-2 small's heads on the demo's prompts: 15 tokens that differ from position 10 on.
    let config = TransformerConfig { d_vocab: 30, n_ctx: 16, ..TransformerConfig::gpt2(12, 12, 48, 30, 16) };
    let model = Transformer::<Flex>::random(&config, 0, &Default::default());
    let clean: Vec<u32> = (0..15).collect();
    let mut corrupted = clean.clone();
    corrupted[10] = 20;
    let pair = PromptPair { clean, corrupted, answers: vec![1], wrong_answers: vec![2] };
    let pairs = PromptPairs::new(vec![pair; 8]).unwrap();
    let metric = LogitDiff::new(&pairs);
    let heads = [NodeKind::all(Component::HeadZ)];
    let counted = activation_patching_cost(&model, &pairs, &metric, &heads, &Execution::default()).unwrap();
    // By hand, per head: an MLP (16 d^2 per token), 10 - l whole blocks (24 d^2), keys and values
    // in the last block (4 d^2), and the rest of that block at one position (20 d^2). In the last
    // layer: the MLP at one position.
    let (d2, tokens, prompts) = (48.0 * 48.0, 40.0, 8.0);
    let layer =
        |l: f64| if l == 11.0 { 16.0 * prompts } else { (16.0 + 24.0 * (10.0 - l) + 4.0) * tokens + 20.0 * prompts };
    let products: f64 = (0..12).map(|l| 12.0 * d2 * layer(f64::from(l))).sum();
    let base = 2.0 * d2 * prompts * (11.0 * 24.0 * 15.0 + 4.0 * 15.0 + 20.0);
    let ratio = counted.operations / (products + base);
    // Attention and the two logits are not in this count.
    assert!((1.0..1.1).contains(&ratio), "{ratio}");
    // One run for all layers computes the same, and reads each block's weights once.
    let budget = Execution { token_budget: 1 << 20, layers: Some(LayerBatching::AllLayers), ..Execution::default() };
    let together = activation_patching_cost(&model, &pairs, &metric, &heads, &budget).unwrap();
    assert_eq!(together.operations, counted.operations);
    assert!(together.bytes < counted.bytes);
    let all = [NodeKind::by_position(Component::ResidPre)];
    let by_position = activation_patching_cost(&model, &pairs, &metric, &all, &Execution::default()).unwrap();
    assert!(by_position.operations < counted.operations);
    // A block has 12 d^2 weights. The two runs read all blocks, and the pass for layer l reads the
    // blocks above l and the MLP of l. Each row's residual stream is read and written once per
    // block.
    let weights = d2 * (2.0 * 12.0 * 12.0 + (0..12).map(|l| 12.0 * f64::from(11 - l) + 8.0).sum::<f64>());
    let rows_and_blocks = 2.0 * prompts * 15.0 * 12.0 + (0..12).map(|l| 12.0 * tokens * f64::from(12 - l)).sum::<f64>();
    let ratio = counted.bytes / (4.0 * (weights + 2.0 * 48.0 * rows_and_blocks));
    // The columns of the logits are not in this count.
    assert!((1.0..1.01).contains(&ratio), "{ratio}");
    assert_eq!(counted.seconds(counted.operations, 1e30), 1.0);
    assert_eq!(counted.seconds(1e30, counted.bytes), 1.0);
    let far =
        activation_patching(&model, asked(&pairs, &metric), &all, Direction::Denoising, &Execution::default()).unwrap();
    let before = far.effects[0].values.slice_axis(ndarray::Axis(2), ndarray::Slice::from(..10)).to_owned();
    assert_eq!(scale(&before), 0.0);
}
