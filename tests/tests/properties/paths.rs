//! Compares path patching with TransformerLens, and with two whole forwards per path on random
//! models and pairs.

use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use proptest::prelude::*;
use rewire_analysis::Baselines;
use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::path::{
    FreezePolicy, Input, Path, Receiver, ReceiverUpdate, Recompute, patch_paths, path_patching,
};
use rewire_analysis::run::{Direction, Execution};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{LogProbability, LogitDiff, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::{assert_within, rounding};
use rewire_tests::memory::Memory;
use rewire_tests::random::{any_answers, any_family, any_pairs, with_whole_answers};

const SENDERS: [Component; 8] = [
    Component::HeadZ,
    Component::HeadResult,
    Component::AttnOut,
    Component::MlpOut,
    Component::MlpPost,
    Component::ResidPre,
    Component::ResidMid,
    Component::ResidPost,
];

const INPUTS: [Input; 7] =
    [Input::Q, Input::K, Input::V, Input::MlpIn, Input::ResidPre, Input::ResidPost, Input::ResidMid];

fn any_policy() -> impl Strategy<Value = FreezePolicy> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(mlps, norms, set)| {
        let frozen = |held| if held { Recompute::Frozen } else { Recompute::Yes };
        let update = if set { ReceiverUpdate::Replace } else { ReceiverUpdate::Add };
        FreezePolicy { mlps: frozen(mlps), norms: frozen(norms), update }
    })
}

/// Draws the numbers that define a node or receiver, modulo the sizes of the model and the pairs:
/// component, layer, unit, kind of position, position.
fn any_end() -> impl Strategy<Value = (usize, usize, Option<usize>, usize, usize)> {
    (0_usize..8, 0_usize..4, prop::option::of(0_usize..48), 0_usize..4, 0_usize..8)
}

fn positions(place: usize, position: usize, pairs: &PromptPairs) -> Positions {
    match place {
        0 | 1 => Positions::All,
        // A position that every prompt has.
        2 => Positions::One(position % (pairs.ends().into_iter().min().unwrap_or(0) + 1)),
        _ => Positions::Each((0..pairs.len()).map(|p| position % (pairs.end(p) + 1)).collect()),
    }
}

fn sender(
    (what, layer, unit, place, position): (usize, usize, Option<usize>, usize, usize),
    config: &TransformerConfig,
    pairs: &PromptPairs,
) -> Node {
    let all: Vec<Component> = senders(config).collect();
    let component = all[what % all.len()];
    let unit = match component {
        Component::MlpPost => unit.map(|u| u % config.d_mlp),
        Component::HeadZ | Component::HeadResult => unit.map(|u| u % config.n_heads),
        _ => None,
    };
    Node { layer: layer % config.n_layers, component, unit, positions: positions(place, position, pairs) }
}

fn senders(config: &TransformerConfig) -> impl Iterator<Item = Component> + '_ {
    SENDERS.into_iter().filter(|c| !config.parallel_block || *c != Component::ResidMid)
}

fn receiver(
    (what, layer, unit, place, position): (usize, usize, Option<usize>, usize, usize),
    config: &TransformerConfig,
    pairs: &PromptPairs,
) -> Receiver {
    let input = INPUTS[what % if config.parallel_block { 6 } else { 7 }];
    let head = match input {
        Input::Q => unit.map(|u| u % config.n_heads),
        Input::K | Input::V => unit.map(|u| u % config.n_key_value_heads()),
        _ => None,
    };
    Receiver { layer: layer % config.n_layers, input, head, positions: positions(place, position, pairs) }
}

fn direction(noising: bool) -> Direction {
    if noising { Direction::Noising } else { Direction::Denoising }
}

/// Returns the tolerance: float32 differences of the metric are as exact as the sizes of the metric
/// allow.
fn tolerance<B: Backend>(baselines: &Baselines, changes: &ArrayD<f32>) -> f32 {
    rounding::<B>()
        * baselines.clean.iter().chain(&baselines.corrupted).chain(changes).fold(1.0_f32, |m, v| m.max(v.abs()))
}

/// Tests the properties on one backend.
macro_rules! properties {
    ($name:ident, $backend:ty, $cases:literal) => {
        mod $name {
            use super::*;

            type Plain = $backend;

proptest! {
    #![proptest_config(ProptestConfig { cases: $cases, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn path_patching_equals_two_whole_forwards_per_sender(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(), policy in any_policy(),
        ends in prop::collection::vec(any_end(), 1..4), budget in 1_usize..200, by in 0_usize..3, mark in 0_usize..8,
        batch in 1_usize..5, workers in 1_usize..4,
    ) {
        // With residual streams of 4 to 8 numbers the norm is nearly a step, and it would amplify
        // rounding beyond any tolerance.
        let config = TransformerConfig { norm_eps: 0.1, ..config };
        let marks = (0..pairs.len()).map(|p| (mark + p) % (pairs.end(p) + 1)).collect();
        let pairs = pairs.with_marked_positions(marks).unwrap();
        let model = Transformer::<Plain>::random(&config, seed, &Default::default());
        let metric = LogitDiff::new(&pairs);
        let by = [By::All, By::Position, By::Marked][by];
        let kinds: Vec<NodeKind> = senders(&config).map(|component| NodeKind { component, by }).collect();
        let receivers: Vec<Receiver> = ends.into_iter().map(|end| receiver(end, &config, &pairs)).collect();
        let execution = Execution::default();
        let reference = Execution { reuse: rewire_analysis::run::Reuse::Nothing, ..execution };
        let expected = path_patching(&model, asked(&pairs, &metric), &kinds, &receivers, policy, direction(noising), &reference).unwrap();
        let fast = Execution { token_budget: budget, prompt_batch: batch, workers: Some(workers), ..execution };
        let found = path_patching(&model, asked(&pairs, &metric), &kinds, &receivers, policy, direction(noising), &fast).unwrap();
        let found_baselines = found.outcome.baselines.clone();
        // Leaving out unreached receivers changes nothing (if neither they nor their norms are
        // held), and every other receiver is reached by a sender.
        let others: Vec<Receiver> = receivers.iter().filter(|r| !found.unreached.contains(r)).cloned().collect();
        if policy.update == ReceiverUpdate::Add && policy.norms == Recompute::Yes && !others.is_empty() {
            let without = path_patching(&model, asked(&pairs, &metric), &kinds, &others, policy, direction(noising), &fast).unwrap();
            prop_assert_eq!(without.unreached, []);
            for (found, without) in found.outcome.effects.iter().zip(&without.outcome.effects) {
                let tolerance = tolerance::<Plain>(&found_baselines, &found.values);
                assert_within(&found.values, &without.values, tolerance, "without the unreached");
            }
        }
        if others.is_empty() {
            prop_assert!(found.outcome.effects.iter().all(|e| e.values.iter().all(|v| *v == 0.0)));
        }
        let expected_baselines = &expected.outcome.baselines;
        for (found, expected) in found.outcome.effects.iter().zip(&expected.outcome.effects) {
            let tolerance = tolerance::<Plain>(expected_baselines, &expected.values);
            assert_within(&found.values, &expected.values, tolerance, &format!("{} to {receivers:?}", found.kind));
        }
    }

    #[test]
    fn paths_to_whole_answers_equal_two_whole_forwards(
        config in any_family(), pairs in any_pairs(), answers in any_answers(), seed in 0_u64..1000, noising in any::<bool>(),
        policy in any_policy(), ends in prop::collection::vec(any_end(), 1..4), budget in 1_usize..200, by in 0_usize..2,
        batch in 1_usize..5,
    ) {
        let config = TransformerConfig { norm_eps: 0.1, ..config };
        let pairs = with_whole_answers(&pairs, &answers);
        let model = Transformer::<Plain>::random(&config, seed, &Default::default());
        let metric = LogProbability::new(&pairs);
        let by = [By::All, By::Position][by];
        let kinds: Vec<NodeKind> = senders(&config).map(|component| NodeKind { component, by }).collect();
        let receivers: Vec<Receiver> = ends.into_iter().map(|end| receiver(end, &config, &pairs)).collect();
        let reference = Execution::reference();
        let expected = path_patching(&model, asked(&pairs, &metric), &kinds, &receivers, policy, direction(noising), &reference).unwrap();
        let fast = Execution { token_budget: budget, prompt_batch: batch, ..Execution::default() };
        let found = path_patching(&model, asked(&pairs, &metric), &kinds, &receivers, policy, direction(noising), &fast).unwrap();
        for (found, expected_effects) in found.outcome.effects.iter().zip(&expected.outcome.effects) {
            let tolerance = tolerance::<Plain>(&expected.outcome.baselines, &expected_effects.values);
            assert_within(&found.values, &expected_effects.values, tolerance, &format!("{} to {receivers:?}", found.kind));
        }
    }

    #[test]
    fn paths_with_several_senders_and_receivers_equal_whole_forwards(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(), policy in any_policy(),
        ends in prop::collection::vec(
            (prop::collection::vec(any_end(), 1..5), prop::collection::vec(any_end(), 1..5)), 1..6
        ),
        budget in 1_usize..200, batch in 1_usize..5,
    ) {
        let config = TransformerConfig { norm_eps: 0.1, ..config };
        let model = Transformer::<Plain>::random(&config, seed, &Default::default());
        let metric = LogitDiff::new(&pairs);
        let path = |(from, to): (Vec<_>, Vec<_>)| Path {
            senders: from.into_iter().map(|end| sender(end, &config, &pairs)).collect(),
            receivers: to.into_iter().map(|end| receiver(end, &config, &pairs)).collect(),
        };
        let paths: Vec<Path> = ends.into_iter().map(path).collect();
        let execution = Execution::default();
        let reference = Execution { reuse: rewire_analysis::run::Reuse::Nothing, ..execution };
        let expected = patch_paths(&model, asked(&pairs, &metric), &paths, policy, direction(noising), &reference).unwrap();
        let fast = Execution { token_budget: budget, prompt_batch: batch, ..execution };
        let found = patch_paths(&model, asked(&pairs, &metric), &paths, policy, direction(noising), &fast).unwrap();
        let what = format!("{policy}: {paths:?}");
        let expected = expected.values.into_dyn();
        let tolerance = tolerance::<Plain>(&found.baselines, &expected);
        assert_within(&found.values.into_dyn(), &expected, tolerance, &what);
    }

    #[test]
    fn resumed_path_patching_gives_the_same_bits(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, lost in 0_usize..50, end in any_end(),
    ) {
        let model = Transformer::<Plain>::random(&config, seed, &Default::default());
        let metric = LogitDiff::new(&pairs);
        let kinds = [NodeKind::all(Component::HeadZ), NodeKind::by_position(Component::MlpOut)];
        let receivers = [receiver(end, &config, &pairs)];
        let (memory, last) = (Memory::default(), std::sync::Mutex::new((0, 0)));
        let progress = |done: usize, total: usize| {
            let mut last = last.lock().unwrap();
            assert!(done >= last.0 && done <= total);
            *last = (done, total);
        };
        let kept = Execution { token_budget: 20, prompt_batch: 2, checkpoint: &memory, ..Execution::default() };
        let follow = |policy, execution: &Execution| {
            path_patching(&model, asked(&pairs, &metric), &kinds, &receivers, policy, Direction::Noising, execution).unwrap()
        };
        let whole = follow(FreezePolicy::path_patching(), &Execution { progress: &progress, ..kept });
        let reported = *last.lock().unwrap();
        prop_assert_eq!(reported.0, reported.1);
        prop_assert_eq!(memory.run(), memory.kept());
        prop_assert_eq!(memory.announced(), memory.kept());
        let lost = memory.lose(lost);
        prop_assert_eq!(&follow(FreezePolicy::path_patching(), &kept), &whole);
        prop_assert_eq!(memory.run(), lost);
        // A checkpoint of one freeze policy is not used for another one.
        let direct = follow(FreezePolicy::direct(), &kept);
        prop_assert_eq!(direct, follow(FreezePolicy::direct(), &Execution { checkpoint: &(), ..kept }));
    }

    #[test]
    fn all_paths_to_the_last_residual_stream_together_equal_patching_it(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000,
    ) {
        let config = TransformerConfig { norm_eps: 0.1, ..config };
        let model = Transformer::<Plain>::random(&config, seed, &Default::default());
        let metric = LogitDiff::new(&pairs);
        // All writers are senders: the embeddings, every attention layer and every MLP.
        let mut senders = vec![Node::new(0, Component::ResidPre)];
        for layer in 0..config.n_layers {
            senders.extend([Component::AttnOut, Component::MlpOut].map(|c| Node::new(layer, c)));
        }
        let last = config.n_layers - 1;
        let path = Path { senders, receivers: vec![Receiver::new(last, Input::ResidPost)] };
        for policy in [FreezePolicy::path_patching(), FreezePolicy::direct()] {
            let found = patch_paths(&model, asked(&pairs, &metric), std::slice::from_ref(&path), policy, Direction::Denoising, &Execution::default()).unwrap();
            for prompt in 0..pairs.len() {
                // With the whole residual stream replaced, the metric equals that of the other run.
                let change = found.baselines.clean[prompt] - found.baselines.corrupted[prompt];
                let expected = if pairs.first_difference(prompt).is_some() { change } else { 0.0 };
                let tolerance = tolerance::<Plain>(&found.baselines, &found.values.clone().into_dyn());
                prop_assert!((found.values[[prompt, 0]] - expected).abs() <= tolerance);
            }
        }
    }
}
        }
    };
}

in_this_precision!(properties, 48, 12);
