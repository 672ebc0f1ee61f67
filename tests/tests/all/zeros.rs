//! Effects that must be exactly 0, and results that must be finite or refused, on random models and
//! pairs.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use proptest::prelude::*;
use rewire_analysis::AnalysisError;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attention_attribution, attribute_groups, attribution_patching,
    edge_attribution,
};
use rewire_analysis::heads::{
    KeptTokens, Suppression, attention_patterns, backup_heads, copy_suppression, logit_attribution,
};
use rewire_analysis::integrated::{IntegratedGradientsOptions, integrated_gradients, interpolation_curves};
use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::patching::{ablation, activation_patching, patch_groups};
use rewire_analysis::path::{FreezePolicy, Input, Receiver, path_patching};
use rewire_analysis::run::{Direction, Execution, Intervention, MeanOver, Reuse, clean_logits, mean_activations};
use rewire_analysis::stats::Agreement;
use rewire_hooks::{ActivationCache, Head, HookPoint, Recorder, Site};
use rewire_model::{Activation, FinalNormGain, Run, Transformer, TransformerConfig};
use rewire_tasks::{Accuracy, KlDivergence, LogitDiff, Metric, Probability, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::array;
use rewire_tests::random::{any_config, any_pairs};

pub(super) type Grad = Autodiff<Flex>;

pub(super) fn model(config: &TransformerConfig, seed: u64) -> Transformer<Grad> {
    Transformer::random(config, seed, &Default::default())
}

pub(super) fn direction(noising: bool) -> Direction {
    if noising { Direction::Noising } else { Direction::Denoising }
}

/// Draws pairs whose prompts differ at scattered positions only.
fn scattered() -> impl Strategy<Value = PromptPairs> {
    (any_pairs(), prop::collection::vec(any::<[bool; 8]>(), 4)).prop_map(|(pairs, kept)| {
        let scatter = |(pair, kept): (&PromptPair, &[bool; 8])| {
            let corrupted = pair.clean.iter().zip(&pair.corrupted).zip(kept);
            let corrupted = corrupted.map(|((clean, other), kept)| if *kept { *clean } else { *other }).collect();
            PromptPair { corrupted, ..pair.clone() }
        };
        PromptPairs::new(pairs.pairs().iter().zip(&kept).map(scatter).collect()).unwrap()
    })
}

/// Returns every component of a model.
fn components(config: &TransformerConfig) -> Vec<Component> {
    use Component::{AttnOut, HeadK, HeadPattern, HeadQ, HeadV, HeadZ, MlpOut, MlpPost, ResidMid, ResidPost, ResidPre};
    let all = [ResidPre, ResidPost, AttnOut, MlpOut, MlpPost, HeadQ, HeadK, HeadV, HeadZ, HeadPattern];
    all.into_iter().chain((!config.parallel_block).then_some(ResidMid)).collect()
}

/// Returns whether the tokens imply equal activations in both runs: no token up to this position
/// differs; or, in the first block, attention has not mixed positions yet and this token is equal.
fn same_by_tokens(
    config: &TransformerConfig,
    pair: &PromptPair,
    component: Component,
    layer: usize,
    at: usize,
) -> bool {
    let own = match component {
        Component::ResidPre | Component::HeadQ | Component::HeadK | Component::HeadV => true,
        Component::MlpOut | Component::MlpPost => config.parallel_block,
        _ => false,
    };
    at >= pair.clean.len()
        || pair.clean[..=at] == pair.corrupted[..=at]
        || layer == 0 && own && pair.clean[at] == pair.corrupted[at]
}

/// Asserts that effects by position are 0 without a sign if the tokens imply it; returns the number
/// of such nodes after the first difference.
fn assert_still(
    what: &str,
    config: &TransformerConfig,
    pairs: &PromptPairs,
    kind: NodeKind,
    values: &ArrayD<f32>,
) -> usize {
    let mut still = 0;
    for (index, value) in values.indexed_iter() {
        let index = ndarray::Dimension::slice(&index);
        let (prompt, layer, at) = (index[0], index[1], index[index.len() - 1]);
        let pair = &pairs.pairs()[prompt];
        if same_by_tokens(config, pair, kind.component, layer, at) {
            assert_eq!(value.to_bits(), 0, "{what}, {kind} {index:?}: {value:e}");
            still += usize::from(at < pair.clean.len() && pair.clean[..at] != pair.corrupted[..at]);
        }
    }
    still
}

/// Multiplies every weight by a number.
pub(super) struct Times(pub(super) f32);

impl<B: Backend> ModuleMapper<B> for Times {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let times = self.0;
        param.map(|weights| weights * times)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn activations_with_equal_tokens_have_an_effect_of_exactly_0(
        config in any_config(), pairs in scattered(), seed in 0_u64..1000, noising in any::<bool>(), budget in 1_usize..200,
    ) {
        let model = model(&config, seed);
        let plain = model.valid();
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { token_budget: budget, prompt_batch: 1 + budget % 3, ..Execution::default() };
        let kinds: Vec<NodeKind> = components(&config).into_iter().map(NodeKind::by_position).collect();
        let exact = activation_patching(&plain, asked(&pairs, &metric), &kinds, direction(noising), &execution).unwrap();
        let estimates = attribution_patching(&model, asked(&pairs, &metric), &kinds, direction(noising), &execution).unwrap();
        for effects in exact.effects.iter().chain(&estimates.effects) {
            assert_still("patching", &config, &pairs, effects.kind, &effects.values);
        }

        // Each node is a group, and all unchanged positions in one prompt are a group, too.
        let nodes = |component: Component| {
            (0..pairs.width()).map(move |at| Node::new(0, component).at(Positions::One(at))).collect::<Vec<_>>()
        };
        for component in [Component::ResidPre, Component::HeadQ, Component::HeadV, Component::MlpOut] {
            let mut groups: Vec<Vec<Node>> = nodes(component).into_iter().map(|node| vec![node]).collect();
            let together: Vec<Node> = (0..pairs.width())
                .filter(|&at| same_by_tokens(&config, &pairs.pairs()[0], component, 0, at))
                .map(|at| Node::new(0, component).at(Positions::One(at)))
                .collect();
            groups.extend((!together.is_empty()).then_some(together));
            let exact = patch_groups(&plain, asked(&pairs, &metric), &groups, direction(noising), &execution).unwrap();
            let estimate = attribute_groups(&model, asked(&pairs, &metric), &groups, direction(noising), &execution).unwrap();
            for values in [&exact.values, &estimate.values] {
                for ((prompt, group), value) in values.indexed_iter() {
                    let still = groups[group].iter().all(|node| {
                        let at = node.positions.position(prompt).unwrap();
                        same_by_tokens(&config, &pairs.pairs()[prompt], component, 0, at)
                    });
                    prop_assert!(!still || value.to_bits() == 0, "{component} of {:?}: {value:e}", groups[group]);
                }
            }
        }

        let last = config.n_layers - 1;
        let receivers = [Receiver::new(last, Input::Q), Receiver::new(last, Input::MlpIn), Receiver::new(last, Input::ResidPost)];
        let senders = [NodeKind::by_position(Component::ResidPre), NodeKind::by_position(Component::MlpOut)];
        for policy in [FreezePolicy::path_patching(), FreezePolicy::direct()] {
            let found = path_patching(&plain, asked(&pairs, &metric), &senders, &receivers, policy, direction(noising), &execution).unwrap();
            for effects in &found.outcome.effects {
                assert_still("path patching", &config, &pairs, effects.kind, &effects.values);
            }
        }
        let integral = IntegratedGradientsOptions { tolerance: 10.0, ..IntegratedGradientsOptions::default() };
        let lines = integrated_gradients(&model, asked(&pairs, &metric), &senders, &integral, &execution).unwrap();
        for effects in &lines.outcome.effects {
            assert_still("integrated gradients", &config, &pairs, effects.kind, &effects.values);
        }
    }

    #[test]
    fn activations_equal_in_both_runs_have_an_effect_of_exactly_0(
        config in any_config(), pairs in scattered(), seed in 0_u64..1000, noising in any::<bool>(), by in 0_usize..2,
    ) {
        let config = TransformerConfig { activation: Activation::Relu, ..config };
        assert_held_neurons_do_nothing(&config, &pairs, seed, noising, [By::All, By::Position][by]);
    }

    #[test]
    fn every_method_returns_finite_numbers_or_an_error(
        config in any_config(), pairs in any_pairs(), seed in 0_u64..1000, power in 0_i32..39, negative in any::<bool>(), metric in 0_usize..4,
    ) {
        let config = TransformerConfig { norm_eps: if negative { -1.0 } else { config.norm_eps }, ..config };
        let model = model(&config, seed).map(&mut Times(10.0_f32.powi(power)));
        let plain = model.valid();
        let reference = clean_logits(&plain, &pairs, 2);
        match (metric, &reference) {
            (0, _) => finite_or_refused(&model, &pairs, &LogitDiff::new(&pairs))?,
            (1, _) => finite_or_refused(&model, &pairs, &Probability::new(&pairs))?,
            (2, _) => finite_or_refused(&model, &pairs, &Accuracy::new(&pairs))?,
            (_, Ok(reference)) => {
                prop_assert!(reference.iter().flatten().all(|logit| logit.is_finite()));
                finite_or_refused(&model, &pairs, &KlDivergence::new(&pairs, reference))?;
            }
            (_, Err(error)) => prop_assert!(matches!(error, AnalysisError::NotFinite { .. }), "{error}"),
        }
    }
}

/// Asserts that neurons with equal activations in both runs have an effect of exactly 0 with three
/// methods; returns the number of such neurons.
fn assert_held_neurons_do_nothing(
    config: &TransformerConfig,
    pairs: &PromptPairs,
    seed: u64,
    noising: bool,
    by: By,
) -> usize {
    let model = model(config, seed).valid();
    let metric = LogitDiff::new(pairs);
    let neurons = NodeKind { component: Component::MlpPost, by };
    let found =
        activation_patching(&model, asked(pairs, &metric), &[neurons], direction(noising), &Execution::default())
            .unwrap();
    let groups: Vec<Vec<Node>> =
        (0..config.d_mlp).map(|unit| vec![Node::new(0, Component::MlpPost).unit(unit)]).collect();
    let alone =
        patch_groups(&model, asked(pairs, &metric), &groups, direction(noising), &Execution::default()).unwrap();
    let senders = [NodeKind::all(Component::MlpPost)];
    let to = [Receiver::new(config.n_layers - 1, Input::ResidPost)];
    let sent = path_patching(
        &model,
        asked(pairs, &metric),
        &senders,
        &to,
        FreezePolicy::path_patching(),
        direction(noising),
        &Execution::default(),
    )
    .unwrap();
    let [clean, corrupted] = [pairs.clean(), pairs.corrupted()].map(|prompts| {
        let mut recorder = Recorder::filtered(|p: HookPoint| p.site() == Some(Site::MlpPost));
        model.forward(Run::tokens(model.tokens(&prompts).unwrap()), &mut recorder).unwrap();
        recorder.into_cache()
    });
    let mut still = 0;
    for layer in 0..config.n_layers {
        let [clean, corrupted] =
            [&clean, &corrupted].map(|cache| array(cache.block::<3>(layer, Site::MlpPost).unwrap()));
        for prompt in 0..pairs.len() {
            for unit in 0..config.d_mlp {
                let same = |at: usize| clean[[prompt, at, unit]] == corrupted[[prompt, at, unit]];
                let all = (0..=pairs.end(prompt)).all(same);
                still += usize::from(all);
                if all && layer == 0 {
                    assert_eq!(alone.values[[prompt, unit]].to_bits(), 0);
                }
                if all {
                    assert_eq!(sent.outcome.effects[0].values[[prompt, layer, unit]].to_bits(), 0);
                }
                let effects = &found.effects[0].values;
                match neurons.by {
                    By::All => assert!(!all || effects[[prompt, layer, unit]].to_bits() == 0),
                    _ => {
                        for at in 0..=pairs.end(prompt) {
                            assert!(!same(at) || effects[[prompt, layer, unit, at]].to_bits() == 0);
                        }
                    }
                }
            }
        }
    }
    still
}

#[test]
fn neurons_that_a_relu_holds_at_0_have_no_effect() {
    let config = TransformerConfig { activation: Activation::Relu, ..TransformerConfig::gpt2(2, 3, 24, 30, 16) };
    for seed in 0..3 {
        assert!(assert_held_neurons_do_nothing(&config, &demo_shaped(), seed, false, By::All) > 0, "seed {seed}");
    }
}

/// Asserts that every method returns finite numbers or an error.
fn finite_or_refused<M: Metric>(
    model: &Transformer<Grad>,
    pairs: &PromptPairs,
    metric: &M,
) -> Result<(), TestCaseError> {
    let plain = model.valid();
    let all = [Component::ResidPre, Component::HeadQ, Component::HeadZ, Component::HeadPattern, Component::MlpPost];
    let kinds = all.map(NodeKind::all);
    let adding = [NodeKind::all(Component::HeadZ), NodeKind::all(Component::MlpOut)];
    let execution = Execution::default();
    let check = |method: &str, found: Result<Vec<f32>, AnalysisError>| {
        match found {
            Ok(numbers) => prop_assert!(numbers.iter().all(|n| n.is_finite()), "{method} gives {numbers:?}"),
            Err(
                AnalysisError::NotFinite { .. }
                | AnalysisError::Incomplete { .. }
                | AnalysisError::NotDifferentiable { .. }
                | AnalysisError::Stationary { .. }
                | AnalysisError::GradientVanishes { .. },
            ) => {}
            Err(error) => prop_assert!(false, "{method}: {error}"),
        }
        Ok(())
    };
    let flat = |outcome: rewire_analysis::Outcome| {
        let baselines = outcome.baselines.clean.into_iter().chain(outcome.baselines.corrupted);
        baselines.chain(outcome.effects.into_iter().flat_map(|e| e.values.into_iter().collect::<Vec<_>>())).collect()
    };
    check(
        "patching",
        activation_patching(&plain, asked(pairs, metric), &kinds, Direction::Denoising, &Execution::default())
            .map(flat),
    )?;
    let slow = Execution { reuse: Reuse::Nothing, ..execution };
    check(
        "the reference",
        activation_patching(&plain, asked(pairs, metric), &kinds, Direction::Denoising, &slow).map(flat),
    )?;
    check(
        "attribution",
        attribution_patching(model, asked(pairs, metric), &kinds, Direction::Denoising, &Execution::default())
            .map(flat),
    )?;
    let paths = EdgeAttributionOptions { norm: NormJacobian::Exact, reduce: Reduce::PerPrompt };
    let found = edge_attribution(model, asked(pairs, metric), paths, Direction::Denoising, &Execution::default());
    check("head edges", found.map(|paths| paths.values.into_iter().collect()))?;
    let found = attention_attribution(model, asked(pairs, metric), &Execution::default());
    check("attention attribution", found.map(|values| values.into_iter().collect()))?;
    let found = integrated_gradients(
        model,
        asked(pairs, metric),
        &adding,
        &IntegratedGradientsOptions::default(),
        &Execution::default(),
    );
    check("integrated gradients", found.map(|found| flat(found.outcome)))?;
    check(
        "ablation",
        ablation(&plain, asked(pairs, metric), &adding, &Intervention::Zero, &Execution::default()).map(flat),
    )?;
    let to = [Receiver::new(model.config().n_layers - 1, Input::ResidPost)];
    let found = path_patching(
        &plain,
        asked(pairs, metric),
        &adding,
        &to,
        FreezePolicy::path_patching(),
        Direction::Denoising,
        &Execution::default(),
    );
    check("path patching", found.map(|found| flat(found.outcome)))?;
    let group = [vec![Node::new(0, Component::HeadZ).unit(0), Node::new(0, Component::MlpOut)]];
    let values = |outcome: rewire_analysis::patching::GroupOutcome| outcome.values.into_iter().collect();
    check(
        "groups",
        patch_groups(&plain, asked(pairs, metric), &group, Direction::Denoising, &Execution::default()).map(values),
    )?;
    check(
        "group attribution",
        attribute_groups(model, asked(pairs, metric), &group, Direction::Denoising, &Execution::default()).map(values),
    )?;
    let node = [Node::new(0, Component::MlpOut)];
    let found =
        interpolation_curves(&plain, pairs, metric, &node, &[-1.0, 0.5, 2.0], &Intervention::Resample, &execution);
    check("curves", found.map(|curves| curves.values.into_iter().collect()))?;
    check(
        "logit attribution",
        logit_attribution(&plain, pairs, &adding, FinalNormGain::Applied, &execution).map(flat),
    )?;
    let suppression = copy_suppression(&plain, pairs, &[Head::new(0, 0)], &KeptTokens::default(), &execution);
    let divergences =
        |found: Vec<Suppression>| found.iter().flat_map(|s| [s.preserved as f32, s.ablated as f32]).collect();
    check("copy suppression", suppression.map(divergences))?;
    let found = backup_heads(&plain, pairs, &[Head::new(0, 0)], FinalNormGain::Applied, &execution);
    check("backup heads", found.map(|found| found.after.into_iter().chain(found.logit_difference_after).collect()))?;
    let prompt = [pairs.pairs()[0].clean.clone()];
    check("patterns", attention_patterns(&plain, &prompt, 4).map(|patterns| patterns.into_iter().collect()))?;
    let means = mean_activations(&plain, &prompt, &[Site::Z], MeanOver::Prompts, 4);
    check("means", means.map(|means| numbers(&means, HookPoint::block(0, Site::Z))))
}

fn numbers(cache: &ActivationCache<Flex>, point: HookPoint) -> Vec<f32> {
    cache.get::<4>(point).unwrap().into_data().iter::<f32>().collect()
}

/// Returns eight pairs of 15 tokens that differ at position 10 only, like the demo's prompts in
/// GPT-2.
pub(super) fn demo_shaped() -> PromptPairs {
    let pair = |i: u32| {
        let clean: Vec<u32> = (0..15).map(|at| (at * 7 + i * 11) % 30).collect();
        let mut corrupted = clean.clone();
        corrupted[10] = (clean[10] + 1 + i) % 30;
        PromptPair { answers: vec![corrupted[10]], wrong_answers: vec![clean[10]], clean, corrupted }
    };
    PromptPairs::new((0..8).map(pair).collect()).unwrap()
}

#[test]
fn agreement_leaves_out_nodes_that_are_0_in_both_methods() {
    // There are 12 heads in each of 12 layers at the 5 positions from the difference on. In layer
    // 0, queries, keys and values differ at position 10 only (4 fewer per head). In the last layer,
    // queries matter at END only (4 fewer per head).
    let pairs = demo_shaped();
    for seed in 0..3 {
        let model = model(&TransformerConfig::gpt2(12, 12, 48, 30, 16), seed);
        let metric = LogitDiff::new(&pairs);
        let kinds = [Component::HeadQ, Component::HeadK, Component::HeadV].map(NodeKind::by_position);
        let exact = activation_patching(
            &model.valid(),
            asked(&pairs, &metric),
            &kinds,
            Direction::Denoising,
            &Execution::default(),
        )
        .unwrap();
        let estimate =
            attribution_patching(&model, asked(&pairs, &metric), &kinds, Direction::Denoising, &Execution::default())
                .unwrap();
        for ((exact, estimate), compared) in exact.effects.iter().zip(&estimate.effects).zip([624, 672, 672]) {
            let found = Agreement::new(exact, estimate, 10).unwrap();
            assert_eq!((found.nodes, found.compared), (12 * 12 * 15, compared), "{}, seed {seed}", exact.kind);
            assert_eq!(assert_still("exact", model.config(), &pairs, exact.kind, &exact.values), 8 * 12 * 4);
        }
    }
}

#[test]
fn the_query_at_the_first_position_has_no_effect() {
    let pair = PromptPair { clean: vec![3, 4, 5], corrupted: vec![6, 4, 5], answers: vec![1], wrong_answers: vec![2] };
    let pairs = PromptPairs::new(vec![pair]).unwrap();
    let model = model(&TransformerConfig::gpt2(2, 2, 8, 17, 12), 0).valid();
    let kinds = [Component::HeadQ, Component::HeadPattern, Component::HeadK].map(NodeKind::by_position);
    let found = activation_patching(
        &model,
        asked(&pairs, &LogitDiff::new(&pairs)),
        &kinds,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap();
    let first = |kind: usize| found.effects[kind].values.index_axis(ndarray::Axis(3), 0).to_owned();
    assert!(first(0).iter().chain(&first(1)).all(|v| v.to_bits() == 0));
    assert!(first(2).iter().any(|v| *v != 0.0));
}
