//! Activations, gradients, logits and effects match TransformerLens: on both CPU backends, for
//! GPT-2 and NeoX, with processed and unprocessed weights.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, Axis, stack};
use rewire_analysis::Outcome;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attention_attribution, attribution_patching, edge_attribution,
};
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_hooks::{ActivationCache, GradientProbes, HookPoint, Recorder, Site};
use rewire_model::{FinalNormGain, ReadPositions, Readout, Run, Transformer, WeightProcessing};
use rewire_tasks::{LogitDiff, Metric};
use rewire_tests::compare::{Tolerance, array, assert_close, scale};
use rewire_tests::fixture::{Fixture, processings};
use rewire_tests::on_every_backend;

on_every_backend!(
    logits_match_transformer_lens,
    every_processing_switch_matches,
    activations_match,
    gradients_match,
    activation_patching_matches,
    attribution_patching_matches,
    head_edges_match,
    attention_attribution_matches,
    logit_attribution_matches,
);

// Each absolute part is three to six times the largest difference beyond the relative part,
// measured over both models, both kinds of weights and both CPU backends.

/// Relative to the largest activation; measured 6.1e-7.
const ACTIVATIONS: Tolerance = Tolerance::new(2e-6, 2e-6);
/// Relative to the largest gradient at a hook point; measured 1.2e-6.
const GRADIENTS: Tolerance = Tolerance::new(5e-6, 5e-5);
/// For normalized effects, which are differences of metrics near 1; measured 2.5e-7, and 4.0e-7 for
/// single prompts.
const CHANGES: Tolerance = Tolerance::new(1.5e-6, 1e-5);
/// For normalized attributions, which are sums of products; measured 5.7e-8.
const PRODUCTS: Tolerance = Tolerance::new(3e-7, 1e-5);
/// For normalized attributions of attention cells; measured 3.6e-8.
const ATTENTION: Tolerance = Tolerance::new(1.5e-7, 1e-5);
/// For normalized attributions of head edges; measured 1.0e-8.
const PATHS: Tolerance = Tolerance::new(5e-8, 1e-5);
/// In logits; measured 2.1e-7.
const LOGITS: Tolerance = Tolerance::new(1e-6, 1e-5);

fn logits<B: Backend>(model: &Transformer<B>, tokens: &[Vec<u32>]) -> ArrayD<f32> {
    array(model.forward(Run::tokens(model.tokens(tokens).unwrap()), ()).unwrap())
}

fn logits_match_transformer_lens<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<B> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let expected = fixture.table(&format!("{weights}/clean_logits")).unwrap();
            let actual = logits(&model, &pairs.clean());
            let tolerance = ACTIVATIONS.times(scale(expected)).on::<B>();
            assert_close(&actual, expected, tolerance, &format!("{} {weights} logits", fixture.name));
        }
    }
}

fn every_processing_switch_matches<B: Backend>() {
    let none = WeightProcessing::none();
    let switches = [
        ("fold_ln", WeightProcessing { fold_norm: true, ..none }),
        ("center_writing_weights", WeightProcessing { center_writing_weights: true, ..none }),
        ("center_unembed", WeightProcessing { center_unembed: true, ..none }),
        ("fold_value_biases", WeightProcessing { fold_value_biases: true, ..none }),
    ];
    let mut compared = 0;
    for fixture in Fixture::all() {
        for (switch, processing) in switches {
            let Some(expected) = fixture.table(&format!("switch/{switch}/clean_logits")) else { continue };
            let model: Transformer<B> = fixture.model(processing);
            let actual = logits(&model, &fixture.pairs(&model).clean());
            let tolerance = ACTIVATIONS.times(scale(expected)).on::<B>();
            assert_close(&actual, expected, tolerance, &format!("{} {switch}", fixture.name));
            compared += 1;
        }
    }
    assert!(compared >= 8, "only {compared} switches were compared");
}

fn activations_match<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing, reference) in &fixture.caches {
            let model: Transformer<B> = fixture.model(*processing);
            let pairs = fixture.pairs(&model);
            for (group, tokens) in [("clean", pairs.clean()), ("corrupted", pairs.corrupted())] {
                let mut recorder = Recorder::all();
                model.forward(Run::tokens(model.tokens(&tokens).unwrap()), &mut recorder).unwrap();
                let cache = recorder.into_cache();
                let mut points = 0;
                for (name, expected) in reference {
                    let Some(name) = name.strip_prefix(group).and_then(|n| n.strip_prefix('/')) else { continue };
                    points += usize::from(name.parse::<HookPoint>().is_ok());
                    let actual = first_row(&activation(&model, &cache, name));
                    let what = format!("{} {weights} {group} {name}", fixture.name);
                    let tolerance = ACTIVATIONS.times(scale(expected)).on::<B>();
                    assert_close(&actual, expected, tolerance, &what);
                }
                assert_eq!(points, cache.len(), "{}: points that the reference does not have", fixture.name);
            }
        }
    }
}

/// Returns the activation that TransformerLens calls `name`. Two of its names are derived here.
fn activation<B: Backend>(model: &Transformer<B>, cache: &ActivationCache<B>, name: &str) -> ArrayD<f32> {
    if let Some(layer) = layer_of(name, "attn.hook_result") {
        return array(cache.head_results(layer, model.w_o(layer)).unwrap());
    }
    if let Some(layer) = layer_of(name, "hook_mlp_in") {
        let site = if model.config().parallel_block { Site::ResidPre } else { Site::ResidMid };
        return array(cache.block::<3>(layer, site).unwrap());
    }
    at(cache, name.parse().unwrap())
}

/// Returns the cached activation at a point of any rank.
fn at<B: Backend>(cache: &ActivationCache<B>, point: HookPoint) -> ArrayD<f32> {
    match point.rank() {
        4 => array(cache.get::<4>(point).unwrap()),
        _ => array(cache.get::<3>(point).unwrap()),
    }
}

fn gradients_match<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing, reference) in &fixture.caches {
            let model: Transformer<Autodiff<B>> = fixture.model(*processing);
            let pairs = fixture.pairs(&model);
            let metric = LogitDiff::new(&pairs);
            let [clean, corrupted] = logit_difference_means(&fixture);
            let unit = 1.0 / (pairs.len() as f32 * (clean - corrupted));
            for (group, tokens) in [("clean_grad", pairs.clean()), ("corrupted_grad", pairs.corrupted())] {
                let mut probes = GradientProbes::all();
                let readout = Readout { positions: ReadPositions::All, columns: metric.reads().columns };
                let run = Run::tokens(model.tokens(&tokens).unwrap()).with_readout(readout);
                let logits = model.forward(run, &mut probes).unwrap();
                let [batch, pos, columns] = logits.dims();
                let last = logits.narrow(1, pos - 1, 1).reshape([batch, columns]);
                let prompts: Vec<usize> = (0..batch).collect();
                let loss = metric.evaluate(last, &prompts).sum() * unit;
                let gradients = probes.gradients(&loss);
                for point in gradients.points().collect::<Vec<_>>() {
                    // The reference calls the first norm three times. Ours runs once, and its
                    // gradient is the sum of the three.
                    let shared_norm = point.to_string().contains(".ln1.");
                    let group = if shared_norm { format!("{group}_ln1sum") } else { group.to_owned() };
                    let expected = &reference[&format!("{group}/{point}")];
                    let what = format!("{} {weights} {group} {point}", fixture.name);
                    let tolerance = GRADIENTS.times(scale(expected)).on::<B>();
                    assert_close(&first_row(&at(&gradients, point)), expected, tolerance, &what);
                }
            }
        }
    }
}

/// Returns the mean effects over prompts for one kind of node.
fn mean(outcome: &Outcome, kind: NodeKind) -> ArrayD<f32> {
    outcome.effects.iter().find(|e| e.kind == kind).unwrap().mean()
}

/// Returns the effects in the reference's layout: `[resid_pre, attn_out, mlp_out][layer, pos]`.
fn block_every(outcome: &Outcome) -> ArrayD<f32> {
    let parts = BLOCKS.map(|c| mean(outcome, NodeKind::by_position(c)));
    stack(Axis(0), &parts.each_ref().map(|p| p.view())).unwrap()
}

/// `[z, q, k, v, pattern][layer, head]`.
fn head_all_pos_every(outcome: &Outcome) -> ArrayD<f32> {
    let parts = HEADS.map(|c| mean(outcome, NodeKind::all(c)));
    stack(Axis(0), &parts.each_ref().map(|p| p.view())).unwrap()
}

/// `[z, q, k, v, pattern][layer, pos, head]`.
fn head_by_pos_every(outcome: &Outcome) -> ArrayD<f32> {
    let parts = HEADS.map(|c| mean(outcome, NodeKind::by_position(c)).permuted_axes(ndarray::IxDyn(&[0, 2, 1])));
    stack(Axis(0), &parts.each_ref().map(|p| p.view())).unwrap()
}

const BLOCKS: [Component; 3] = [Component::ResidPre, Component::AttnOut, Component::MlpOut];
const HEADS: [Component; 5] =
    [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];
const CELLS: NodeKind = NodeKind { component: Component::HeadPattern, by: By::Cell };

fn nodes() -> Vec<NodeKind> {
    let blocks = BLOCKS.map(NodeKind::by_position);
    let heads = HEADS.into_iter().flat_map(|c| [NodeKind::all(c), NodeKind::by_position(c)]);
    blocks.into_iter().chain(heads).collect()
}

fn activation_patching_matches<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<B> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let metric = LogitDiff::new(&pairs);
            for (direction, tag) in [(Direction::Denoising, "act"), (Direction::Noising, "noising")] {
                let compare = |name: &str, actual: &ArrayD<f32>| {
                    let Some(expected) = fixture.table(&format!("{weights}/{tag}/{name}")) else { return false };
                    let what = format!("{} {weights}/{tag}/{name}", fixture.name);
                    assert_close(actual, expected, CHANGES.on::<B>(), &what);
                    true
                };
                let outcome = activation_patching(
                    &model,
                    Question::new(&pairs, &metric),
                    &nodes(),
                    direction,
                    &Execution::default(),
                )
                .unwrap();
                let compared = [
                    compare("block_every", &block_every(&outcome)),
                    compare("head_all_pos_every", &head_all_pos_every(&outcome)),
                    compare("head_by_pos_every", &head_by_pos_every(&outcome)),
                ];
                // External fixtures may have fewer tables, but at least one.
                assert!(compared.contains(&true) || tag == "noising", "{}: nothing was compared", fixture.name);
                if let Some(expected) = fixture.table(&format!("{weights}/{tag}/head_all_pos_every_per_prompt")) {
                    let z = &outcome.effects.iter().find(|e| e.kind == NodeKind::all(Component::HeadZ)).unwrap().values;
                    let expected = expected.index_axis(Axis(0), 0).to_owned().permuted_axes(ndarray::IxDyn(&[2, 0, 1]));
                    let what = format!("{} {weights}/{tag} per prompt", fixture.name);
                    assert_close(z, &expected, CHANGES.on::<B>(), &what);
                }
                if tag == "noising" {
                    continue;
                }
                let mut further =
                    vec![CELLS, NodeKind::all(Component::MlpPost), NodeKind::by_position(Component::ResidPost)];
                if !model.config().parallel_block {
                    further.push(NodeKind::by_position(Component::ResidMid));
                }
                let outcome = activation_patching(
                    &model,
                    Question::new(&pairs, &metric),
                    &further,
                    direction,
                    &Execution::default(),
                )
                .unwrap();
                let names = ["pattern_dest_src", "mlp_post", "resid_post", "resid_mid"];
                for (name, kind) in names.into_iter().zip(further) {
                    compare(name, &mean(&outcome, kind));
                }
            }
        }
    }
}

fn attribution_patching_matches<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<Autodiff<B>> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let metric = LogitDiff::new(&pairs);
            for (direction, tag) in [(Direction::Denoising, "attr"), (Direction::Noising, "attr_noising")] {
                let outcome = attribution_patching(
                    &model,
                    Question::new(&pairs, &metric),
                    &nodes(),
                    direction,
                    &Execution::default(),
                )
                .unwrap();
                for (name, actual) in [
                    ("block_every", block_every(&outcome)),
                    ("head_all_pos_every", head_all_pos_every(&outcome)),
                    ("head_by_pos_every", head_by_pos_every(&outcome)),
                ] {
                    let table = format!("{weights}/{tag}/{name}");
                    match fixture.table(&table) {
                        Some(expected) => {
                            assert_close(&actual, expected, PRODUCTS.on::<B>(), &format!("{} {table}", fixture.name))
                        }
                        None => assert_eq!(tag, "attr_noising", "{}: {table} is missing", fixture.name),
                    }
                }
            }
        }
    }
}

fn head_edges_match<B: Backend>() {
    for fixture in Fixture::all() {
        let mut compared = 0;
        for (weights, processing) in processings() {
            let model: Transformer<Autodiff<B>> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            for (norm, tag) in [(NormJacobian::Exact, "exact"), (NormJacobian::Frozen, "fwd_div")] {
                let table = format!("{weights}/attr/head_path_{tag}");
                let Some(expected) = fixture.table(&table) else { continue };
                let paths = EdgeAttributionOptions { norm, reduce: Reduce::PerPrompt };
                let found = edge_attribution(
                    &model,
                    Question::new(&pairs, &LogitDiff::new(&pairs)),
                    paths,
                    Direction::Denoising,
                    &Execution::default(),
                )
                .unwrap()
                .mean();
                let actual = found.into_shape_with_order(ndarray::IxDyn(expected.shape())).unwrap();
                assert_close(&actual, expected, PATHS.on::<B>(), &format!("{} {table}", fixture.name));
                compared += 1;
            }
        }
        assert!(compared >= 3, "{}: only {compared} tables of head edges", fixture.name);
    }
}

fn attention_attribution_matches<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<Autodiff<B>> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let per_prompt =
                attention_attribution(&model, Question::new(&pairs, &LogitDiff::new(&pairs)), &Execution::default())
                    .unwrap();
            // The reference differentiates the mean over the batch.
            let actual = (per_prompt / pairs.len() as f32).into_dyn();
            let expected = fixture.table(&format!("{weights}/attr/attention_attr")).unwrap();
            let what = format!("{} {weights} attention attribution", fixture.name);
            assert_close(&actual, expected, ATTENTION.on::<B>(), &what);
        }
    }
}

fn logit_attribution_matches<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<B> = fixture.model(processing);
            let config = model.config();
            let pairs = fixture.pairs(&model);
            let mut recorder = Recorder::all();
            model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
            let cache = recorder.into_cache();
            let w_o: Vec<_> = (0..config.n_layers).map(|layer| model.w_o(layer)).collect();
            let heads = cache.stacked_head_results(&w_o).unwrap();
            let [answers, wrong] = [0, 1].map(|side| {
                let of =
                    |p: &rewire_tasks::PromptPair| if side == 0 { p.answers.clone() } else { p.wrong_answers.clone() };
                pairs.pairs().iter().map(of).collect::<Vec<_>>()
            });
            let direction = model.logit_direction(&answers, &wrong, FinalNormGain::LeftOut);
            let attribution =
                array(cache.logit_attribution(heads.values, direction, &pairs.ends(), config.norm).unwrap());
            let actual = attribution.mean_axis(Axis(1)).unwrap();
            let actual = actual.into_shape_with_order(ndarray::IxDyn(&[config.n_layers, config.n_heads])).unwrap();
            let expected = fixture.table(&format!("{weights}/dla/heads_clean")).unwrap();
            let what = format!("{} {weights} head logit attribution", fixture.name);
            assert_close(&actual, expected, LOGITS.on::<B>(), &what);
        }
    }
}

/// Returns the layer in `blocks.L.<site>`.
fn layer_of(name: &str, site: &str) -> Option<usize> {
    name.strip_prefix("blocks.")?.strip_suffix(site)?.trim_end_matches('.').parse().ok()
}

fn first_row(values: &ArrayD<f32>) -> ArrayD<f32> {
    values.slice_axis(Axis(0), ndarray::Slice::from(0..1)).to_owned()
}

fn logit_difference_means(fixture: &Fixture) -> [f32; 2] {
    let per_row = fixture.table("proc/logit_diff_per_row").unwrap();
    [0, 1].map(|run| per_row.index_axis(Axis(0), run).mean().unwrap())
}
