//! Integrated gradients match Captum, are complete, and equal activation patching if the path is
//! the patch.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Axis as Dimension;
use proptest::prelude::*;
use rewire_analysis::AnalysisError;
use rewire_analysis::integrated::{
    Integrated, IntegratedGradientsOptions, LineScope, Quadrature, QuadratureNode, QuadratureNodes, Rule,
    integrated_gradients,
};
use rewire_analysis::node::{By, Component, Node, NodeKind};
use rewire_analysis::patching::{ablation, activation_patching, patch_groups};
use rewire_analysis::run::{Direction, Execution, Intervention, MeanOver, Question, clean_logits, mean_activations};
use rewire_hooks::{ActivationCache, HookPoint, Site};
use rewire_model::{Activation, Transformer, TransformerConfig};
use rewire_studies::integrated_gradients::{literal_first_node, literal_first_node_backward, literal_means};
use rewire_tasks::{Accuracy, KlDivergence, LogProbability, LogitDiff, PromptPair, PromptPairs, WholeAnswers};
use rewire_tests::asked;
use rewire_tests::compare::{Tolerance, assert_close, assert_within, scale, tolerance};
use rewire_tests::fixture::{Arrays, Fixture, processings, tensors};
use rewire_tests::memory::Memory;
use rewire_tests::on_every_backend;
use rewire_tests::random::{any_family, any_pairs};

on_every_backend!(
    integrated_gradients_match_captum,
    completeness_gaps_with_few_steps_match_captum,
    literal_first_node_matches_captum
);

/// Largest allowed difference from Captum's float64 attributions, in logits.
const CAPTUM: Tolerance = Tolerance::new(6e-6, 1e-5);

pub(crate) const HEADS: NodeKind = NodeKind { component: Component::HeadResult, by: By::All };
pub(crate) const NEURONS: NodeKind = NodeKind { component: Component::MlpPost, by: By::All };

/// Gaps are differences of sums up to 10 over several hundred attributions. The largest measured
/// error is 7.6e-6.
const ROUNDING_OF_GAPS: f32 = 1e-5;

pub(crate) type Grad = Autodiff<Flex>;

/// Returns lines to the corrupted activations and to zero.
pub(crate) fn ends<B: Backend>() -> [(&'static str, IntegratedGradientsOptions<B>); 2] {
    let to = |baseline| IntegratedGradientsOptions { baseline, ..IntegratedGradientsOptions::default() };
    [("corr", to(Intervention::Resample)), ("zero", to(Intervention::Zero))]
}

fn integrated_gradients_match_captum<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<Autodiff<B>> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            for (end, integral) in ends() {
                let nodes = [HEADS, NEURONS];
                let found = integrated_gradients(
                    &model,
                    asked(&pairs, &LogitDiff::new(&pairs)),
                    &nodes,
                    &integral,
                    &Execution::default(),
                )
                .unwrap();
                for (i, kind) in ["attn", "mlp"].into_iter().enumerate() {
                    let table = format!("{weights}/ig/{kind}_{end}");
                    let what = format!("{} {table}", fixture.name);
                    let values = &found.outcome.effects[i].values;
                    assert_close(values, fixture.table(&table).unwrap(), CAPTUM.on::<B>(), &what);
                    // Captum's gaps are below 3e-8 with 50 nodes.
                    // `completeness_gaps_with_few_steps_match_captum` tests larger ones.
                    let deltas = fixture.table(&format!("{table}_delta")).unwrap();
                    assert!(scale(deltas) < 3e-8, "{what}: {:e}", scale(deltas));
                    assert_within(
                        &found.completeness[i].gap,
                        deltas,
                        Tolerance::from(ROUNDING_OF_GAPS).on::<B>(),
                        &format!("{what} gap"),
                    );
                    assert!(found.completeness[i].steps.iter().all(|&steps| steps == 50), "{what} took more steps");
                }
            }
        }
    }
}

/// Returns the tables that `integrals.py` computes with Captum only.
fn integrals(fixture: &Fixture) -> Option<Arrays> {
    let path = fixture.pairs_file().with_file_name("integrals.safetensors");
    assert!(path.is_file() || !fixture.is_own(), "{} is missing", path.display());
    path.is_file().then(|| tensors(&path))
}

/// With few nodes the gaps are about as large as the change, so the comparison is meaningful.
fn completeness_gaps_with_few_steps_match_captum<B: Backend>() {
    let rules = [
        (Rule::GaussLegendre, 2, "gausslegendre"),
        (Rule::RiemannLeft, 4, "riemann_left"),
        (Rule::RiemannRight, 4, "riemann_right"),
        (Rule::RiemannMiddle, 4, "riemann_middle"),
    ];
    for fixture in Fixture::all() {
        let Some(tables) = integrals(&fixture) else { continue };
        for (weights, processing) in processings() {
            let model: Transformer<Autodiff<B>> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let (mut gaps, mut deltas) = (Vec::new(), Vec::new());
            for (rule, steps, name) in rules {
                let quadrature = Quadrature { rule, steps };
                let integral = IntegratedGradientsOptions {
                    quadrature: quadrature.into(),
                    tolerance: f64::INFINITY,
                    ..IntegratedGradientsOptions::default()
                };
                let (metric, nodes) = (LogitDiff::new(&pairs), [HEADS, NEURONS]);
                let found =
                    integrated_gradients(&model, asked(&pairs, &metric), &nodes, &integral, &Execution::default())
                        .unwrap();
                for (i, kind) in ["attn", "mlp"].into_iter().enumerate() {
                    let table = format!("{weights}/ig_few/{name}/{kind}_corr");
                    let what = format!("{} {table}", fixture.name);
                    assert_close(&found.outcome.effects[i].values, &tables[&table], CAPTUM.on::<B>(), &what);
                    let (gap, delta) = (found.completeness[i].gap.clone(), &tables[&format!("{table}_delta")]);
                    if rule == Rule::GaussLegendre {
                        // Two nodes are exact on some of these lines.
                        let rounding = Tolerance::from(ROUNDING_OF_GAPS).on::<B>();
                        assert_within(&gap, delta, rounding, &format!("{what} gap"));
                        assert!(scale(delta) > 0.1, "{what}: {:e}", scale(delta));
                    } else {
                        gaps.push(gap);
                        deltas.push(delta.clone());
                    }
                }
            }
            let [gaps, deltas] = [gaps, deltas].map(|all| {
                let views: Vec<_> = all.iter().map(|a: &ndarray::ArrayD<f32>| a.view()).collect();
                ndarray::stack(Dimension(0), &views).unwrap()
            });
            let what = format!("{} {weights} gaps", fixture.name);
            assert_close(&gaps, &deltas, Tolerance::from(ROUNDING_OF_GAPS).on::<B>(), &what);
        }
    }
}

fn literal_first_node_matches_captum<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<Autodiff<B>> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let first = PromptPairs::new(pairs.pairs()[..1].to_vec()).unwrap();
            let metric = LogitDiff::new(&first);
            let mut compared = 0;
            for (end, integral) in ends() {
                let nodes = [HEADS, NEURONS];
                let found = literal_first_node(
                    &model,
                    asked(&first, &metric),
                    &nodes,
                    integral.baseline,
                    &Execution::default(),
                )
                .unwrap();
                let means = literal_means(&found, &first, model.config().d_model);
                for (i, kind) in ["attn", "mlp"].into_iter().enumerate() {
                    let table = format!("{weights}/seed001/ig_{kind}_{end}_literal");
                    let Some(expected) = fixture.table(&table) else { continue };
                    // These figures are about 1e-5, so a tolerance of 1e-4 would test nothing.
                    let tolerance = tolerance::<B>() * scale(expected);
                    assert_close(&means[i].mean(), expected, tolerance, &format!("{} {table}", fixture.name));
                    compared += 1;
                }
            }
            assert!(compared == 4 || !fixture.is_own(), "{}: only {compared} tables", fixture.name);

            the_literal_gaps_match(&model, &fixture, &first, weights);

            let exact = activation_patching(
                &model.valid(),
                Question::new(&first, &metric),
                &[HEADS, NEURONS],
                Direction::Noising,
                &Execution::default(),
            )
            .unwrap();
            for (i, kind) in ["attn", "mlp"].into_iter().enumerate() {
                let table = format!("{weights}/seed001/ap_{kind}");
                match fixture.table(&table) {
                    Some(expected) => {
                        let what = format!("{} {table}", fixture.name);
                        assert_close(&exact.effects[i].mean(), expected, tolerance::<B>(), &what);
                    }
                    None => assert!(!fixture.is_own(), "{}: {table} is missing", fixture.name),
                }
            }
        }
    }
}

/// Compares with Captum's convergence deltas for the notebook's code, and with its figure for the
/// line from the corrupted to the clean activation.
fn the_literal_gaps_match<B: Backend>(
    model: &Transformer<Autodiff<B>>,
    fixture: &Fixture,
    first: &PromptPairs,
    weights: &str,
) {
    let Some(tables) = integrals(fixture) else { return };
    let (metric, nodes) = (LogitDiff::new(first), [HEADS, NEURONS]);
    let matches = |found: &Integrated, end: &str| {
        for (i, kind) in ["attn", "mlp"].into_iter().enumerate() {
            let table = format!("{weights}/seed001/ig_{kind}_{end}_literal_delta");
            let gaps = found.completeness[i].gap.index_axis(Dimension(0), 0).to_owned();
            let what = format!("{} {table}", fixture.name);
            assert_close(&gaps, &tables[&table], Tolerance::from(ROUNDING_OF_GAPS).on::<B>(), &what);
        }
    };
    for (end, integral) in ends() {
        matches(
            &literal_first_node(model, asked(first, &metric), &nodes, integral.baseline, &Execution::default())
                .unwrap(),
            end,
        );
    }
    let corrupted = Intervention::Resample;
    let backward =
        literal_first_node_backward(model, asked(first, &metric), &nodes, corrupted, &Execution::default()).unwrap();
    matches(&backward, "reversed");
    let means = literal_means(&backward, first, model.config().d_model);
    for (i, kind) in ["attn", "mlp"].into_iter().enumerate() {
        let table = format!("{weights}/seed001/ig_{kind}_reversed_literal");
        let tolerance = tolerance::<B>() * scale(&tables[&table]);
        assert_close(&means[i].mean(), &tables[&table], tolerance, &format!("{} {table}", fixture.name));
    }
}

pub(crate) fn model(config: &TransformerConfig, seed: u64) -> Transformer<Grad> {
    Transformer::random(config, seed, &Default::default())
}

/// Returns the configuration with a large epsilon. A residual stream of four or eight numbers
/// passes close to a variance of 0, where a norm is nearly a step. Several such norms in sequence
/// need thousands of nodes: their integrals converge, but too slowly for a test. So do those of
/// OPT's ReLU, which has a kink and is replaced by GELU.
pub(crate) fn smooth(config: TransformerConfig) -> TransformerConfig {
    let activation = match config.activation {
        Activation::Relu => Activation::Gelu,
        other => other,
    };
    TransformerConfig { norm_eps: 1.0, activation, ..config }
}

/// Returns the attributions of each kind of layer output, on lines to one end.
pub(crate) fn of_layers(
    model: &Transformer<Grad>,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
    integral: &IntegratedGradientsOptions<Flex>,
) -> Integrated {
    integrated_gradients(model, asked(pairs, &LogitDiff::new(pairs)), nodes, integral, &Execution::default()).unwrap()
}

/// Returns end number `which`, directly or as given activations.
fn any_end(model: &Transformer<Grad>, pairs: &PromptPairs, which: usize) -> Intervention<Flex> {
    let prompts: Vec<Vec<u32>> = pairs.pairs().iter().map(|p| p.clean.clone()).collect();
    let sites = [Site::Z, Site::MlpPost, Site::MlpOut, Site::AttnOut, Site::ResidPre];
    let mean = |over| Intervention::Fixed(mean_activations(&model.valid(), &prompts, &sites, over, 2).unwrap());
    match which {
        0 => Intervention::Resample,
        1 => Intervention::Zero,
        2 => mean(MeanOver::Prompts),
        _ => mean(MeanOver::PromptsAndPositions),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn integrated_gradients_sum_to_the_change_of_the_metric(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, end in 0_usize..4) {
        let post_norms = config.post_norms;
        let model = model(&smooth(config), seed);
        let nodes = [HEADS, NEURONS, NodeKind::all(Component::MlpOut), NodeKind::all(Component::ResidPre), NodeKind::by_position(Component::HeadZ)];
        let integral = IntegratedGradientsOptions { baseline: any_end(&model, &pairs, end), tolerance: 1e-3, ..IntegratedGradientsOptions::default() };
        let found = of_layers(&model, &pairs, &nodes, &integral);
        for (effects, complete) in found.outcome.effects.iter().zip(&found.completeness) {
            let units = effects.values.ndim();
            let sums = (2..units).fold(effects.values.clone(), |sum, _| sum.sum_axis(Dimension(2)));
            let sizes = (2..units).fold(effects.values.mapv(f32::abs), |sum, _| sum.sum_axis(Dimension(2)));
            let size = scale(&sizes).max(1.0);
            assert_within(&(&sums - &complete.change), &complete.gap, 1e-5 * size, "the gap is the sum minus the change");
            assert_within(&sums, &complete.change, 1e-3 * (scale(&complete.change) + 0.02 * size), "complete");
        }
        // The neurons in a layer together equal its MLP, on the same line, except for the zero end:
        // there the MLP's bias separates the lines. A norm after the MLP bends one of them.
        if end != 1 && !post_norms {
            let neurons = found.outcome.effects[1].values.sum_axis(Dimension(2));
            let size = scale(&found.outcome.effects[1].values).max(1.0);
            assert_within(&neurons, &found.outcome.effects[2].values, 1e-3 * size, "neurons of an MLP");
        }
        let by_position = found.outcome.effects[4].values.sum_axis(Dimension(3));
        let heads = &found.outcome.effects[0].values;
        assert_within(&by_position, heads, 1e-5 * scale(heads).max(1.0), "positions of a head");
    }

    #[test]
    fn integrating_one_node_gives_its_exact_effect(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, end in 0_usize..4) {
        let model = model(&smooth(config), seed);
        let nodes = [HEADS, NodeKind::all(Component::AttnOut)];
        let baseline = any_end(&model, &pairs, end);
        let exact = ablation(&model.valid(), asked(&pairs, &LogitDiff::new(&pairs)), &nodes, &baseline, &Execution::default()).unwrap();
        let integral = IntegratedGradientsOptions { baseline, scope: LineScope::Node, tolerance: 1e-3, ..IntegratedGradientsOptions::default() };
        let found = of_layers(&model, &pairs, &nodes, &integral);
        for (exact, along) in exact.effects.iter().zip(&found.outcome.effects) {
            assert_within(&along.values, &exact.values, 2e-3 * scale(&exact.values).max(0.1), "its own line");
        }
    }

    #[test]
    fn integrals_do_not_depend_on_the_batch_size(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, end in 0_usize..4, budget in 1_usize..200) {
        let model = model(&config, seed);
        // No refinement, because prompts that are differentiated together share it.
        let integral = IntegratedGradientsOptions { baseline: any_end(&model, &pairs, end), tolerance: f64::INFINITY, ..IntegratedGradientsOptions::default() };
        let metric = LogitDiff::new(&pairs);
        let run = |execution: &Execution| integrated_gradients(&model, asked(&pairs, &metric), &[HEADS, NEURONS], &integral, execution).unwrap();
        let whole = run(&Execution::default());
        let cut = run(&Execution { token_budget: budget, gradient_batch: 1, workers: Some(1), ..Execution::default() });
        for (whole, cut) in whole.outcome.effects.iter().zip(&cut.outcome.effects) {
            assert_within(&cut.values, &whole.values, 1e-4 * scale(&whole.values).max(0.1), "other batch sizes");
        }
    }

    #[test]
    fn resumed_integrals_and_ablations_give_the_same_bits(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, end in 0_usize..4, lost in 0_usize..20) {
        let model = model(&config, seed);
        let metric = LogitDiff::new(&pairs);
        let nodes = [HEADS, NodeKind::by_position(Component::MlpPost)];
        for scope in [LineScope::Layer, LineScope::Node] {
            let nodes = if scope == LineScope::Node { &nodes[..1] } else { &nodes };
            let baseline = any_end(&model, &pairs, end);
            let quadrature = Quadrature { steps: 3, ..Quadrature::default() }.into();
            let integral = IntegratedGradientsOptions { baseline, scope, quadrature, tolerance: f64::INFINITY, ..IntegratedGradientsOptions::default() };
            let memory = Memory::default();
            let execution = Execution { checkpoint: &memory, gradient_batch: 2, ..Execution::default() };
            let run = || integrated_gradients(&model, asked(&pairs, &metric), nodes, &integral, &execution).unwrap();
            let whole = run();
            prop_assert_eq!(memory.run(), memory.kept());
            prop_assert_eq!(memory.announced(), memory.kept());
            let lost = memory.lose(lost);
            prop_assert_eq!(&run(), &whole);
            prop_assert_eq!(memory.run(), lost);
        }
        let memory = Memory::default();
        let execution = Execution { checkpoint: &memory, prompt_batch: 2, ..Execution::default() };
        let inner = model.valid();
        let run = |by: &Intervention<Flex>| ablation(&inner, asked(&pairs, &metric), &[HEADS], by, &execution).unwrap();
        let zero = run(&Intervention::Zero);
        prop_assert_eq!(memory.run(), memory.kept());
        prop_assert_eq!(memory.announced(), memory.kept());
        let lost = memory.lose(lost);
        prop_assert_eq!(&run(&Intervention::Zero), &zero);
        prop_assert_eq!(memory.run(), lost);
        // A checkpoint of one intervention is not used for another one.
        let resampled = run(&Intervention::Resample);
        let fresh = ablation(&inner, asked(&pairs, &metric), &[HEADS], &Intervention::Resample, &Execution { prompt_batch: 2, ..Execution::default() });
        prop_assert_eq!(resampled, fresh.unwrap());
    }
}

#[test]
fn integrated_gradients_are_complete_on_the_toy_models() {
    for toy in rewire_toy::Toy::ALL {
        let model: Transformer<Grad> = toy.load(&Default::default()).unwrap();
        let tokenizer = toy.tokenizer().unwrap();
        let pairs = rewire_tasks::ioi::demo_pairs(&tokenizer, model.config().bos_token).unwrap();
        for (end, integral) in ends() {
            let integral = IntegratedGradientsOptions { tolerance: 1e-3, ..integral };
            let found = of_layers(&model, &pairs, &[HEADS, NEURONS], &integral);
            for complete in &found.completeness {
                for layer in 0..model.config().n_layers {
                    let [gap, change] =
                        [&complete.gap, &complete.change].map(|v| scale(&v.index_axis(Dimension(1), layer).to_owned()));
                    let what = format!("{toy:?} {end} {} layer {layer}", complete.kind);
                    assert!(gap < 1e-3 * change, "{what}: a gap of {gap:e} of {change:e}");
                    // Zero is far from every activation in layer 0 of toy-gpt2, and the metric is
                    // not smooth on the way.
                    let jumps = (toy, end, layer) == (rewire_toy::Toy::Gpt2, "zero", 0);
                    assert!(complete.steps[layer] == 50 || jumps, "{what} took {} steps", complete.steps[layer]);
                }
            }
        }
    }
}

#[test]
fn kl_divergences_are_complete_up_to_float32_rounding() {
    for toy in rewire_toy::Toy::ALL {
        let model: Transformer<Grad> = toy.load(&Default::default()).unwrap();
        let tokenizer = toy.tokenizer().unwrap();
        let pairs = rewire_tasks::ioi::demo_pairs(&tokenizer, model.config().bos_token).unwrap();
        let kl = KlDivergence::new(&pairs, &clean_logits(&model.valid(), &pairs, 8).unwrap());
        let nodes = [HEADS, NEURONS];
        let mut smallest = f32::INFINITY;
        for (end, integral) in ends() {
            let found =
                integrated_gradients(&model, asked(&pairs, &kl), &nodes, &integral, &Execution::default()).unwrap();
            for complete in &found.completeness {
                let changes = complete.change.iter().map(|change| change.abs());
                smallest = changes.fold(smallest, f32::min);
                for layer in 0..model.config().n_layers {
                    let jumps = (toy, end, layer) == (rewire_toy::Toy::Gpt2, "zero", 0);
                    let steps = complete.steps[layer];
                    assert!(steps == 50 || jumps, "{toy:?} {end} {} layer {layer}: {steps} steps", complete.kind);
                }
            }
        }
        // A hundredth of such a small change is below the rounding of a divergence.
        assert!(smallest < 1e-5, "{toy:?}: {smallest:e}");
        // The rounding floor still refuses a rule that is too coarse for the larger changes.
        let quadrature = Quadrature { rule: Rule::RiemannLeft, steps: 4 };
        let coarse = IntegratedGradientsOptions {
            quadrature: quadrature.into(),
            panels: 1,
            ..IntegratedGradientsOptions::default()
        };
        let refused =
            integrated_gradients(&model, asked(&pairs, &kl), &nodes, &coarse, &Execution::default()).unwrap_err();
        assert!(matches!(refused, AnalysisError::Incomplete { .. }), "{refused}");
    }
}

#[test]
fn attributions_of_whole_answers_sum_to_the_change_of_their_log_probability() {
    for toy in rewire_toy::Toy::ALL {
        let model: Transformer<Grad> = toy.load(&Default::default()).unwrap();
        let tokenizer = toy.tokenizer().unwrap();
        let pairs = rewire_tasks::ioi::demo_pairs(&tokenizer, model.config().bos_token).unwrap();
        // The answer, then the wrong answer: two tokens.
        let whole = |pair: &PromptPair| WholeAnswers {
            clean: pair.clean.clone(),
            corrupted: pair.corrupted.clone(),
            answers: vec![vec![pair.answers[0], pair.wrong_answers[0]]],
        };
        let whole: Vec<WholeAnswers> = pairs.pairs().iter().map(whole).collect();
        let pairs = PromptPairs::with_whole_answers(&whole).unwrap();
        let (metric, integral) = (LogProbability::new(&pairs), IntegratedGradientsOptions::default());
        let question = asked(&pairs, &metric);
        let found = integrated_gradients(&model, question, &[HEADS], &integral, &Execution::default()).unwrap();
        let complete = &found.completeness[0];
        assert!(scale(&complete.change) > 0.1, "{toy:?}: the change is too small to compare");
        // With all heads of the last layer at their corrupted values, the metric is exact.
        let last = model.config().n_layers - 1;
        let heads = (0..model.config().n_heads).map(|head| Node::new(last, Component::HeadZ).unit(head)).collect();
        let patched = patch_groups(&model.valid(), question, &[heads], Direction::Noising, &Execution::default());
        let patched = patched.unwrap().values;
        for prompt in 0..pairs.len() {
            let sum: f32 =
                (0..model.config().n_heads).map(|h| found.outcome.effects[0].values[[prompt, last, h]]).sum();
            let (change, gap) = (patched[[prompt, 0]], complete.gap[[prompt, last]]);
            assert!((sum - gap - change).abs() < 1e-3, "{toy:?} prompt {prompt}: {sum} less {gap} is not {change}");
        }
    }
}

#[test]
fn every_quadrature_rule_refines_to_the_same_integral() {
    let model = model(&TransformerConfig::gpt2(2, 2, 16, 17, 12), 3);
    let pair = PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 7, 3], answers: vec![4], wrong_answers: vec![5] };
    let pairs = PromptPairs::new(vec![pair]).unwrap();
    let exact = of_layers(&model, &pairs, &[HEADS], &IntegratedGradientsOptions::default());
    for rule in [Rule::RiemannLeft, Rule::RiemannRight, Rule::RiemannMiddle, Rule::Trapezoid] {
        let quadrature = Quadrature { rule, steps: 2 };
        let integral = IntegratedGradientsOptions {
            quadrature: quadrature.into(),
            tolerance: 1e-3,
            panels: 4096,
            ..IntegratedGradientsOptions::default()
        };
        let found = of_layers(&model, &pairs, &[HEADS], &integral);
        assert!(found.completeness[0].steps.iter().any(|&steps| steps > 2), "{rule} was never refined");
        let [found, exact] = [&found, &exact].map(|i| &i.outcome.effects[0].values);
        assert_within(found, exact, 5e-3 * scale(exact), &rule.to_string());

        let given_up = IntegratedGradientsOptions {
            quadrature: quadrature.into(),
            tolerance: 1e-7,
            panels: 2,
            ..IntegratedGradientsOptions::default()
        };
        let metric = LogitDiff::new(&pairs);
        let refused = integrated_gradients(&model, asked(&pairs, &metric), &[HEADS], &given_up, &Execution::default())
            .unwrap_err();
        assert!(matches!(refused, AnalysisError::Incomplete { steps: 4, .. }), "{refused}");
        assert!(refused.to_string().contains("head_result, layer "), "{refused}");
    }
}

#[test]
fn a_list_of_quadrature_nodes_is_summed_unchanged() {
    let model = model(&TransformerConfig::gpt2(2, 2, 16, 17, 12), 3);
    let pair = PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 7, 3], answers: vec![4], wrong_answers: vec![5] };
    let pairs = PromptPairs::new(vec![pair]).unwrap();
    let along = |quadrature: QuadratureNodes| {
        let integral = IntegratedGradientsOptions {
            quadrature,
            tolerance: f64::INFINITY,
            ..IntegratedGradientsOptions::default()
        };
        of_layers(&model, &pairs, &[HEADS, NEURONS], &integral)
    };
    let rule = Quadrature { rule: Rule::GaussLegendre, steps: 3 };
    let nodes = rule.nodes().unwrap();
    assert_eq!(along(QuadratureNodes::List(nodes.clone())), along(rule.into()), "a rule's own nodes");
    // The sum over nodes equals the sum of the separate nodes.
    let whole = along(rule.into());
    let alone: Vec<Integrated> = nodes.into_iter().map(|node| along(QuadratureNodes::List(vec![node]))).collect();
    for (kind, effects) in whole.outcome.effects.iter().enumerate() {
        let sum = alone.iter().fold(0.0 * &effects.values, |sum, found| sum + &found.outcome.effects[kind].values);
        assert_within(&sum, &effects.values, 1e-5 * scale(&effects.values), "nodes one by one");
    }
    // A given list is not refined: half of the integral misses the change, and the error comes at
    // once.
    let half = QuadratureNodes::List(vec![QuadratureNode { at: 0.5, weight: 0.5 }]);
    let half = IntegratedGradientsOptions { quadrature: half, ..IntegratedGradientsOptions::default() };
    let metric = LogitDiff::new(&pairs);
    let refused =
        integrated_gradients(&model, asked(&pairs, &metric), &[HEADS], &half, &Execution::default()).unwrap_err();
    assert!(matches!(refused, AnalysisError::Incomplete { steps: 1, .. }), "{refused}");
}

#[test]
fn unsupported_integrals_are_refused() {
    let model = model(&TransformerConfig::gpt2(2, 2, 16, 17, 12), 3);
    let pair = PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 7, 3], answers: vec![4], wrong_answers: vec![5] };
    let pairs = PromptPairs::new(vec![pair; 2]).unwrap();
    let metric = LogitDiff::new(&pairs);
    let refused = |nodes: &[NodeKind], integral: &IntegratedGradientsOptions<Flex>| {
        integrated_gradients(&model, asked(&pairs, &metric), nodes, integral, &Execution::default())
            .unwrap_err()
            .to_string()
    };
    let plain = IntegratedGradientsOptions::default();
    assert!(refused(&[], &plain).contains("no nodes"));
    let none = Quadrature { rule: Rule::GaussLegendre, steps: 0 };
    let none = IntegratedGradientsOptions { quadrature: none.into(), ..plain.clone() };
    assert!(refused(&[HEADS], &none).contains("at least 1 step"));
    let empty = IntegratedGradientsOptions { quadrature: QuadratureNodes::List(Vec::new()), ..plain.clone() };
    assert_eq!(refused(&[HEADS], &empty), "the list of quadrature nodes is empty; give at least one");
    assert!(
        refused(&[NodeKind::all(Component::HeadQ)], &plain)
            .contains("only nodes that are added to the residual stream")
    );
    let cells = NodeKind { component: Component::HeadPattern, by: By::Cell };
    assert!(refused(&[cells], &plain).contains("all or by position"));
    let marked = NodeKind { component: Component::HeadZ, by: By::Marked };
    assert!(refused(&[marked], &plain).contains("mark no position"));

    let given = |shape: [usize; 4]| {
        let z = Tensor::<Flex, 4>::zeros(shape, &Default::default());
        let cache = ActivationCache::new().with(HookPoint::block(0, Site::Z), z.clone());
        let baseline = Intervention::Fixed(cache.with(HookPoint::block(1, Site::Z), z));
        IntegratedGradientsOptions { baseline, ..IntegratedGradientsOptions::default() }
    };
    for wrong in [[3, 3, 2, 8], [2, 2, 2, 8], [1, 1, 1, 8], [1, 1, 2, 7]] {
        let message = refused(&[HEADS], &given(wrong));
        assert!(message.contains("`blocks.0.attn.hook_z`") && message.contains(&format!("{wrong:?}")), "{message}");
        assert!(message.contains("[2, 3, 2, 8]"), "{message}");
    }
    // A needed activation that was not given.
    assert!(refused(&[NEURONS], &given([1, 1, 2, 8])).contains("mlp.hook_post"));
    for right in [[2, 3, 2, 8], [1, 1, 2, 8], [2, 1, 2, 8], [1, 4, 2, 8]] {
        let found = of_layers(&model, &pairs, &[HEADS], &given(right));
        let zero = IntegratedGradientsOptions { baseline: Intervention::Zero, ..IntegratedGradientsOptions::default() };
        assert_eq!(found.outcome.effects, of_layers(&model, &pairs, &[HEADS], &zero).outcome.effects);
    }

    let accuracy = Accuracy::new(&pairs);
    let refused =
        integrated_gradients(&model, asked(&pairs, &accuracy), &[HEADS], &plain, &Execution::default()).unwrap_err();
    assert!(matches!(refused, AnalysisError::NotDifferentiable { .. }));
    let empty = mean_activations(&model.valid(), &[], &[Site::Z], MeanOver::Prompts, 2).unwrap_err();
    assert!(empty.to_string().contains("has no prompts"), "{empty}");
    let patterns =
        mean_activations(&model.valid(), &pairs.clean(), &[Site::Pattern], MeanOver::Prompts, 2).unwrap_err();
    assert!(patterns.to_string().contains("attn.hook_pattern"), "{patterns}");
}
