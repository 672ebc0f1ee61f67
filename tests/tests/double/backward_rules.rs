//! Compares estimates by backward rules with slopes of a literal surrogate on random models of
//! every family, in float64.
//!
//! The surrogate of a rule at a run is a function with the run's value, whose gradient at the run
//! is what the rule passes back. Here it is made of hooks on runs without gradients: they put the
//! held factors of the base run in the place of those of a moved run.

use std::collections::BTreeMap;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, backend::Backend, s};
use burn_ndarray::NdArray;
use ndarray::Axis;
use proptest::prelude::*;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attribute_groups, attribution_patching, edge_attribution,
};
use rewire_analysis::edges::{
    Edge, EdgeEffects, EdgeGraph, GradientsAt, Reader, Writer, attribute_all_edges, patch_all_edges,
};
use rewire_analysis::integrated::{IntegratedGradientsOptions, integrated_gradients};
use rewire_analysis::node::{Component, Node, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution};
use rewire_analysis::{AnalysisError, Reduce};
use rewire_hooks::{ActivationCache, Hook, HookPoint, NormSite, Patch, Recorder, Site};
use rewire_model::{Activation, BackwardRule, HeadInput, ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::random::{any_family, any_pairs};

type Double = NdArray<f64>;

const RULES: [BackwardRule; 2] = [BackwardRule::Relp, BackwardRule::Gim];

/// Hooks that turn a plain run into the surrogate of a rule at the base run.
struct Surrogate<'a> {
    literal: &'a Literal<'a>,
    rule: BackwardRule,
    /// What is added to an activation, which the surrogate then reads.
    moved: Option<(HookPoint, Tensor<Double, 4>)>,
    /// The activations of this run that later points read.
    seen: BTreeMap<HookPoint, Tensor<Double, 4>>,
}

/// Returns a tensor of at most four dimensions with leading dimensions of size 1.
fn four<const D: usize>(x: Tensor<Double, D>) -> Tensor<Double, 4> {
    let mut shape = [1; 4];
    shape[4 - D..].copy_from_slice(&x.dims());
    x.reshape(shape)
}

impl Hook<Double> for Surrogate<'_> {
    fn visit<const D: usize>(&mut self, point: HookPoint, x: Tensor<Double, D>) -> Tensor<Double, D> {
        let shape = x.dims();
        let mut x = self.held(point, four(x));
        if let Some((_, change)) = self.moved.as_ref().filter(|(at, _)| *at == point) {
            x = x + change.clone();
        }
        self.seen.insert(point, x.clone());
        self.scaled(point, x).reshape(shape)
    }
}

impl Surrogate<'_> {
    /// Returns the activation of the base run.
    fn base(&self, point: HookPoint) -> Tensor<Double, 4> {
        self.literal.base(point)
    }

    /// Returns what the surrogate has in the place of `x`, the activation of the plain run.
    fn held(&self, point: HookPoint, x: Tensor<Double, 4>) -> Tensor<Double, 4> {
        let HookPoint::Block { layer, site } = point else {
            return if point == HookPoint::FinalNorm(NormSite::Scale) { self.base(point) } else { x };
        };
        match site {
            Site::Ln1Scale | Site::Ln2Scale | Site::Ln1PostScale | Site::Ln2PostScale => self.base(point),
            Site::Q => self.literal.with_held_scale(layer, HeadInput::Q, &self.seen[&Site::Ln1Normalized.at(layer)], x),
            Site::K => self.literal.with_held_scale(layer, HeadInput::K, &self.seen[&Site::Ln1Normalized.at(layer)], x),
            Site::MlpPost => self.neurons(layer),
            Site::Pattern if self.rule == BackwardRule::Gim => {
                let scores = Site::AttnScores.at(layer);
                let [moved, base] = [self.seen[&scores].clone(), self.base(scores)].map(|x| softmax(x / 2.0, 3));
                self.base(point) + (moved - base) * 2.0
            }
            _ => x,
        }
    }

    /// Returns the neurons of the surrogate.
    fn neurons(&self, layer: usize) -> Tensor<Double, 4> {
        let [pre, linear] = [Site::MlpPre, Site::MlpPreLinear].map(|site| site.at(layer));
        let activation = self.literal.model.config().activation;
        let (before, base) = (self.base(pre), self.base(Site::MlpPost.at(layer)));
        let plain = |x: Tensor<Double, 4>| literal_activation(x, activation);
        let activated = match self.rule {
            BackwardRule::Relp if activation != Activation::Relu => {
                let away = before.clone().sign() * 1e-6;
                (self.seen[&pre].clone() + away.clone()) * (plain(before.clone()) / (before + away))
            }
            _ => plain(self.seen[&pre].clone()),
        };
        match self.seen.get(&linear) {
            Some(factor) => base.clone() + (activated * factor.clone() - base) * 0.5,
            None => activated,
        }
    }

    /// Scales the distance of queries, keys and values from those of the base run.
    fn scaled(&self, point: HookPoint, x: Tensor<Double, 4>) -> Tensor<Double, 4> {
        let factor = match point.site() {
            Some(Site::Q | Site::K) if self.rule == BackwardRule::Gim => 0.25,
            Some(Site::V) if self.rule == BackwardRule::Gim => 0.5,
            _ => return x,
        };
        let base = self.base(point);
        base.clone() + (x - base) * factor
    }
}

fn literal_activation(x: Tensor<Double, 4>, activation: Activation) -> Tensor<Double, 4> {
    match activation {
        Activation::Gelu => x.clone() * 0.5 * ((x / 2.0_f64.sqrt()).erf() + 1.0),
        Activation::GeluNew => {
            let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        }
        Activation::Silu => x.clone() / (x.neg().exp() + 1.0),
        Activation::Relu => x.clamp_min(0.0),
    }
}

/// A model and its unpatched runs on some pairs.
struct Literal<'a> {
    model: Transformer<Double>,
    pairs: &'a PromptPairs,
    base_tokens: Vec<Vec<u32>>,
    base: ActivationCache<Double>,
    source: ActivationCache<Double>,
}

impl<'a> Literal<'a> {
    fn new(model: &Transformer<Autodiff<Double>>, pairs: &'a PromptPairs, direction: Direction) -> Self {
        let model = model.valid();
        let (clean, corrupted) = (pairs.clean(), pairs.corrupted());
        let (base_tokens, other) = match direction {
            Direction::Noising => (clean, corrupted),
            Direction::Denoising => (corrupted, clean),
        };
        let cache = |tokens: &[Vec<u32>]| {
            let mut recorder = Recorder::all();
            let run = Run::tokens(model.tokens(tokens).unwrap()).with_readout(readout(pairs));
            model.forward(run, &mut recorder).unwrap();
            recorder.into_cache()
        };
        let (base, source) = (cache(&base_tokens), cache(&other));
        Self { model, pairs, base_tokens, base, source }
    }

    fn base(&self, point: HookPoint) -> Tensor<Double, 4> {
        of_any_rank(&self.base, point)
    }

    /// Returns the source run minus the base run.
    fn difference(&self, point: HookPoint) -> Tensor<Double, 4> {
        of_any_rank(&self.source, point) - self.base(point)
    }

    /// Returns queries or keys for the norm's output `normalized`, with the scales of the base run
    /// in a norm on them. Without such a norm, returns `plain`.
    fn with_held_scale(
        &self,
        layer: usize,
        input: HeadInput,
        normalized: &Tensor<Double, 4>,
        plain: Tensor<Double, 4>,
    ) -> Tensor<Double, 4> {
        let of = |x: Tensor<Double, 4>| self.model.head_norm(layer, input, x.squeeze_dim::<3>(0));
        let (Some(moved), Some(base)) = (of(normalized.clone()), of(self.base(Site::Ln1Normalized.at(layer)))) else {
            return plain;
        };
        let normed = moved.input / base.scale;
        match moved.gain {
            Some(gain) => normed * gain.unsqueeze_dims::<4>(&[0, 1, 2]),
            None => normed,
        }
        .reshape(plain.shape())
    }

    /// Returns the metric of each prompt on the surrogate, moved by `change` at a point.
    fn metric(&self, rule: BackwardRule, moved: Option<(HookPoint, Tensor<Double, 4>)>) -> (Vec<f64>, Seen) {
        let mut surrogate = Surrogate { literal: self, rule, moved, seen: BTreeMap::new() };
        let run = Run::tokens(self.model.tokens(&self.base_tokens).unwrap()).with_readout(readout(self.pairs));
        let logits = self.model.forward(run, &mut surrogate).unwrap();
        let [rows, _, columns] = logits.dims();
        let prompts: Vec<usize> = (0..rows).collect();
        let metric = LogitDiff::new(self.pairs).evaluate(logits.reshape([rows, columns]), &prompts);
        (metric.into_data().iter::<f64>().collect(), surrogate.seen)
    }

    /// Returns the slope of the metric of each prompt along `change` of an activation.
    fn slope(&self, rule: BackwardRule, point: HookPoint, change: &Tensor<Double, 4>) -> Vec<f64> {
        let at = |step: f64| self.metric(rule, Some((point, change.clone() * step))).0;
        let (up, down) = (at(STEP), at(-STEP));
        up.iter().zip(down).map(|(up, down)| (up - down) / (2.0 * STEP)).collect()
    }

    /// Returns the slope of the metric of each prompt if `reader` alone sees `writer` change.
    fn edge_slope(&self, rule: BackwardRule, Edge { writer, reader }: Edge) -> Vec<f64> {
        let (change, config) = (self.written(writer), self.model.config());
        let (head, input) = match reader {
            Reader::Logits => return self.slope(rule, Site::ResidPost.at(config.n_layers - 1), &change),
            Reader::Mlp(layer) => {
                let site = if config.parallel_block { Site::ResidPre } else { Site::ResidMid };
                let stream = |x| self.model.mlp_norm(layer, x, &mut self.held(Site::Ln2Scale.at(layer)));
                let normalized = self.moved(site.at(layer), change, stream);
                return self.slope(rule, Site::Ln2Normalized.at(layer), &normalized);
            }
            Reader::Head(head, input) => (head, input),
        };
        let layer = head.layer;
        let norm = |x| self.model.attention_norm(layer, x, &mut self.held(Site::Ln1Scale.at(layer)));
        let normalized = self.moved(Site::ResidPre.at(layer), change, norm);
        let sharing = config.heads_per_key_value_head();
        let of = if input == HeadInput::Q { head.head } else { head.head / sharing };
        let point = [Site::Q, Site::K, Site::V][input as usize].at(layer);
        let before = self.base(Site::Ln1Normalized.at(layer));
        let projected = |x: Tensor<Double, 4>| {
            let all: Vec<usize> = (0..self.base(point).dims()[2]).collect();
            let plain = self.model.head_inputs(layer, input, &all, x.clone().squeeze_dim(0));
            self.with_held_scale(layer, input, &x, plain)
        };
        let all = projected(before.clone() + normalized) - projected(before);
        let of_head = s![.., .., of..of + 1, ..];
        let change = all.zeros_like().slice_assign(of_head, all.slice(of_head));
        if input == HeadInput::Q || sharing == 1 {
            return self.slope(rule, point, &change);
        }
        // The heads of the group share the keys or values: the change reaches one head's z alone.
        let z = |step: f64| self.metric(rule, Some((point, change.clone() * step))).1[&Site::Z.at(layer)].clone();
        let of_z = (z(STEP) - z(-STEP)) / (2.0 * STEP);
        let of_head = s![.., .., head.head..head.head + 1, ..];
        self.slope(rule, Site::Z.at(layer), &of_z.zeros_like().slice_assign(of_head, of_z.slice(of_head)))
    }

    /// Returns the change of a writer's output. A norm after attention has the scales of the base
    /// run.
    fn written(&self, writer: Writer) -> Tensor<Double, 4> {
        match writer {
            Writer::Input => self.difference(HookPoint::Embed),
            Writer::Mlp(layer) => self.difference(Site::MlpOut.at(layer)),
            Writer::Head(head) => {
                let results = |cache: &ActivationCache<Double>| {
                    let results = cache.head_results(head.layer, self.model.w_o(head.layer)).unwrap();
                    four(results.narrow(2, head.head, 1).squeeze_dim::<3>(2))
                };
                let change = results(&self.source) - results(&self.base);
                if !self.model.config().post_norms {
                    return change;
                }
                // These norms do not center.
                let [after, before] = [Site::AttnOut, Site::AttnBeforeNorm].map(|site| self.base(site.at(head.layer)));
                change * (after / before)
            }
        }
    }

    /// Returns a hook that puts the scale of the base run at a point.
    fn held(&self, scale: HookPoint) -> Patch<Double> {
        Patch::new().replace(scale, self.base.get::<3>(scale).unwrap())
    }

    /// Returns the change of `f` for a change of the activation at a point, in which `f` is linear.
    fn moved(
        &self,
        point: HookPoint,
        change: Tensor<Double, 4>,
        f: impl Fn(Tensor<Double, 3>) -> Tensor<Double, 3>,
    ) -> Tensor<Double, 4> {
        let base = self.base.get::<3>(point).unwrap();
        four(f(base.clone() + change.squeeze_dim::<3>(0)) - f(base))
    }
}

type Seen = BTreeMap<HookPoint, Tensor<Double, 4>>;

const STEP: f64 = 1e-5;

fn readout(pairs: &PromptPairs) -> Readout {
    let columns = LogitDiff::new(pairs).reads().columns;
    Readout { positions: ReadPositions::Each(pairs.ends()), columns }
}

fn of_any_rank(cache: &ActivationCache<Double>, point: HookPoint) -> Tensor<Double, 4> {
    match point.axes().len() {
        4 => cache.get::<4>(point).unwrap(),
        _ => four(cache.get::<3>(point).unwrap()),
    }
}

fn direction(is_noising: bool) -> Direction {
    if is_noising { Direction::Noising } else { Direction::Denoising }
}

fn model(config: &TransformerConfig, seed: u64) -> Transformer<Autodiff<Double>> {
    // With residual streams of 8 numbers the norm is nearly a step.
    let config = TransformerConfig { norm_eps: 0.1, ..config.clone() };
    Transformer::random(&config, seed, &Default::default())
}

fn assert_slopes(found: &[f64], slopes: &[f64], what: &str) {
    for (found, slope) in found.iter().zip(slopes) {
        assert!((found - slope).abs() <= 1e-7 + 3e-6 * slope.abs(), "{what}: {found} is not {slope}");
    }
    assert_eq!(found.len(), slopes.len(), "{what}");
}

/// The kinds of nodes that every rule estimates.
const NODES: [Component; 8] = [
    Component::ResidPre,
    Component::AttnOut,
    Component::MlpOut,
    Component::HeadQ,
    Component::HeadK,
    Component::HeadV,
    Component::HeadZ,
    Component::MlpPost,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn estimates_by_a_rule_are_slopes_of_its_surrogate(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
        shares in prop::collection::vec(0.0..1.0, 6), batch in 1_usize..5,
    ) {
        let (model, direction) = (model(&config, seed), direction(noising));
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { gradient_batch: batch, ..Execution::default() };
        let literal = Literal::new(&model, &pairs, direction);
        let all: Vec<Edge> = EdgeGraph::new(&config).edges().collect();
        for rule in RULES {
            let question = asked(&pairs, &metric).by_rule(rule);
            let Ok(found) = attribution_patching(&model, question, &NODES.map(NodeKind::all), direction, &execution)
            else { return Ok(()) };
            let layer = (shares[0] * config.n_layers as f64) as usize;
            for (kind, effects) in NODES.iter().zip(&found.effects) {
                let point = HookPoint::block(layer, NodeKind::all(*kind).site());
                let change = literal.difference(point);
                let (change, found): (_, Vec<f64>) = match NodeKind::all(*kind).is_of_heads() {
                    true => {
                        let head = (shares[1] * change.dims()[2] as f64) as usize;
                        let of_head = s![.., .., head..head + 1, ..];
                        let of_head = change.zeros_like().slice_assign(of_head, change.slice(of_head));
                        (of_head, (0..pairs.len()).map(|prompt| f64::from(effects.values[[prompt, layer, head]])).collect())
                    }
                    false => {
                        let of_layer = effects.values.index_axis(Axis(1), layer);
                        (change, of_layer.outer_iter().map(|of| of.iter().map(|v| f64::from(*v)).sum()).collect())
                    }
                };
                let slope = literal.slope(rule, point, &change);
                assert_slopes(&found, &slope, &format!("{kind} of layer {layer} by {rule}, {config:?}"));
            }
            let found =
                attribute_all_edges(&model, question, GradientsAt::Base, Reduce::PerPrompt, direction, &execution).unwrap();
            for share in &shares {
                let edge = all[(share * all.len() as f64) as usize];
                let [writer, reader] = found.graph.place(&edge).unwrap();
                let found: Vec<f64> = found.values.outer_iter().map(|of| f64::from(of[[writer, reader]])).collect();
                assert_slopes(&found, &literal.edge_slope(rule, edge), &format!("{edge} by {rule}, {config:?}"));
            }
        }
    }

    #[test]
    fn edges_by_a_rule_sum_to_the_writers_attribution(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
    ) {
        let (model, direction, execution) = (model(&config, seed), direction(noising), Execution::default());
        let metric = LogitDiff::new(&pairs);
        for rule in RULES {
            let question = asked(&pairs, &metric).by_rule(rule);
            let nodes = [Component::ResidPre, Component::HeadZ, Component::MlpOut].map(NodeKind::all);
            let Ok(of_nodes) = attribution_patching(&model, question, &nodes, direction, &execution)
            else { return Ok(()) };
            let found =
                attribute_all_edges(&model, question, GradientsAt::Base, Reduce::PerPrompt, direction, &execution).unwrap();
            let size = found.values.iter().fold(1e-3_f64, |size, value| size.max(f64::from(value.abs())));
            for ((prompt, number), sum) in found.values.mapv(f64::from).sum_axis(Axis(2)).indexed_iter() {
                let node = match found.graph.writer(number) {
                    Writer::Input => of_nodes.effects[0].values[[prompt, 0]],
                    Writer::Head(head) => of_nodes.effects[1].values[[prompt, head.layer, head.head]],
                    Writer::Mlp(layer) => of_nodes.effects[2].values[[prompt, layer]],
                };
                let error = (sum - f64::from(node)).abs();
                prop_assert!(error <= 1e-6 * size + 1e-5 * sum.abs(), "{} by {rule}: {sum} is not {node}", found.graph.writer(number));
            }
            // Head edges are the edges of the graph that join heads.
            let options = EdgeAttributionOptions { norm: NormJacobian::Frozen, reduce: Reduce::PerPrompt };
            let heads = edge_attribution(&model, question, options, direction, &execution).unwrap();
            for place in found.graph.places() {
                let Edge { writer: Writer::Head(from), reader: Reader::Head(to, input) } = found.graph.edge(place) else { continue };
                for prompt in 0..pairs.len() {
                    let positions = 0..heads.lengths[prompt];
                    let sum: f64 = positions.map(|pos| {
                        f64::from(heads.values[[prompt, to.layer, to.head, input as usize, from.layer, from.head, pos].as_slice()])
                    }).sum();
                    let of_graph = f64::from(found.values[[prompt, place[0], place[1]]]);
                    prop_assert!((sum - of_graph).abs() <= 1e-6 * size, "{sum} is not {of_graph}");
                }
            }
        }
    }

    #[test]
    fn every_rule_is_exact_where_the_rest_of_the_model_is_linear(
        pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
    ) {
        // With an epsilon far above every variance the final norm divides by a constant. In a
        // parallel block nothing else follows the last layer's outputs before the logits.
        let config = TransformerConfig { norm_eps: 1e8, ..TransformerConfig::neox(2, 2, 16, 17, 12) };
        let model = Transformer::<Autodiff<Double>>::random(&config, seed, &Default::default());
        let (direction, execution) = (direction(noising), Execution::default());
        let metric = LogitDiff::new(&pairs);
        let kinds = [Component::HeadZ, Component::AttnOut, Component::MlpOut, Component::MlpPost].map(NodeKind::all);
        let question = asked(&pairs, &metric);
        let exact = activation_patching(&model.valid(), question, &kinds, direction, &execution).unwrap();
        let edges = patch_all_edges(&model.valid(), question, Reduce::PerPrompt, direction, &execution).unwrap();
        // The metrics of exact effects are stored in float32 before they are subtracted.
        let metrics = exact.baselines.clean.iter().chain(&exact.baselines.corrupted);
        let rounding = 1.2e-7 * metrics.fold(0.0_f32, |largest, metric| largest.max(metric.abs()));
        let logits = edges.graph.n_readers() - 1;
        let of_logits = |edges: &EdgeEffects| edges.values.index_axis(Axis(2), logits).to_owned().into_dyn();
        for rule in BackwardRule::ALL {
            let question = question.by_rule(rule);
            let Ok(found) = attribution_patching(&model, question, &kinds, direction, &execution) else { return Ok(()) };
            let at = GradientsAt::Base;
            let estimated = attribute_all_edges(&model, question, at, Reduce::PerPrompt, direction, &execution).unwrap();
            let last = |effects: &rewire_analysis::Effects| effects.values.index_axis(Axis(1), 1).to_owned();
            let nodes = found.effects.iter().zip(&exact.effects).map(|(found, exact)| (last(found), last(exact)));
            for (found, exact) in nodes.chain([(of_logits(&estimated), of_logits(&edges))]) {
                let size = exact.iter().fold(0.0_f32, |size, effect| size.max(effect.abs()));
                for (found, exact) in found.iter().zip(&exact) {
                    prop_assert!((found - exact).abs() <= 1e-3 * size + rounding, "{rule}: {found} is not {exact}");
                }
            }
        }
    }

    #[test]
    fn rules_change_no_activation(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000) {
        let config = TransformerConfig { norm_eps: 0.1, ..config };
        bits_agree::<Autodiff<Flex>>(&config, &pairs, seed);
        bits_agree::<Flex>(&config, &pairs, seed);
    }
}

/// Checks that every activation and logit is the same, bit for bit, with every rule.
fn bits_agree<B: Backend>(config: &TransformerConfig, pairs: &PromptPairs, seed: u64) {
    let model = Transformer::<B>::random(config, seed, &Default::default());
    let numbers = |rule: BackwardRule| {
        let mut recorder = Recorder::all();
        let run = Run::tokens(model.tokens(&pairs.clean()).unwrap()).with_backward(rule);
        let logits = model.forward(run, &mut recorder).unwrap();
        let cache = recorder.into_cache();
        let bits = |data: burn::tensor::TensorData| -> Vec<u32> { data.iter::<f32>().map(f32::to_bits).collect() };
        let of_point = |point: HookPoint| match point.axes().len() {
            4 => bits(cache.get::<4>(point).unwrap().into_data()),
            _ => bits(cache.get::<3>(point).unwrap().into_data()),
        };
        let activations: Vec<Vec<u32>> = cache.points().map(of_point).collect();
        (activations, bits(logits.into_data()))
    };
    let gradient = numbers(BackwardRule::Gradient);
    for rule in RULES {
        assert_eq!(numbers(rule), gradient, "{rule}");
    }
}

fn two_pairs() -> PromptPairs {
    let pair = |clean: [u32; 4], corrupted: [u32; 4]| PromptPair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        answers: vec![7],
        wrong_answers: vec![2],
    };
    PromptPairs::new(vec![pair([1, 2, 3, 4], [1, 9, 3, 4]), pair([5, 6, 3, 1], [5, 8, 3, 1])]).unwrap()
}

#[test]
fn a_group_of_nodes_has_the_sum_of_its_estimates_by_the_rule() {
    let model = model(&TransformerConfig::llama(2, 2, 16, 11, 8), 3);
    let (pairs, execution) = (two_pairs(), Execution::default());
    let metric = LogitDiff::new(&pairs);
    let groups = [vec![Node::new(0, Component::HeadZ).unit(1), Node::new(1, Component::HeadV).unit(0)]];
    for rule in BackwardRule::ALL {
        let question = asked(&pairs, &metric).by_rule(rule);
        let kinds = [Component::HeadZ, Component::HeadV].map(NodeKind::all);
        let nodes = attribution_patching(&model, question, &kinds, Direction::Noising, &execution).unwrap();
        let groups = attribute_groups(&model, question, &groups, Direction::Noising, &execution).unwrap();
        for prompt in 0..2 {
            let sum = nodes.effects[0].values[[prompt, 0, 1]] + nodes.effects[1].values[[prompt, 1, 0]];
            assert!((groups.values[[prompt, 0]] - sum).abs() <= 1e-6, "{rule}");
        }
    }
}

#[test]
fn integrated_gradients_and_exact_norms_refuse_other_rules_than_the_gradient() {
    let model = model(&TransformerConfig::gpt2(2, 2, 16, 11, 8), 3);
    let (pairs, execution) = (two_pairs(), Execution::default());
    let metric = LogitDiff::new(&pairs);
    for rule in RULES {
        let question = asked(&pairs, &metric).by_rule(rule);
        let heads = [NodeKind::all(Component::HeadZ)];
        let integral = IntegratedGradientsOptions::default();
        let refused = integrated_gradients(&model, question, &heads, &integral, &execution).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "integrated gradients cannot use the backward rule {rule}: attributions by another rule do not sum to \
                 the change of the metric; use the rule gradient"
            )
        );
        let options = EdgeAttributionOptions { norm: NormJacobian::Exact, reduce: Reduce::Mean };
        let refused = edge_attribution(&model, question, options, Direction::Noising, &execution).unwrap_err();
        assert!(matches!(refused, AnalysisError::ExactNorms { rule: of } if of == rule), "{refused}");
    }
}
