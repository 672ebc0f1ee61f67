//! Compares AtP* with its literal definition on random models of every family, in float64: patterns
//! of runs in which one query or one key is replaced, and gradients of runs in which one layer is
//! detached.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::{Tensor, s};
use burn_ndarray::NdArray;
use ndarray::{ArrayD, Axis, IxDyn};
use proptest::prelude::*;
use rewire_analysis::attribution::{Estimator, GradientPaths, PatternChange, attribution_patching_by};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::run::{Direction, Execution};
use rewire_analysis::{AnalysisError, Effects};
use rewire_hooks::{ActivationCache, GradientProbes, Hook, HookPoint, Recorder, Site, edit};
use rewire_model::{ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::random::{any_family, any_pairs};

type Double = NdArray<f64>;
type Tracked = Autodiff<Double>;

const QK_FIX: Estimator = Estimator { patterns: PatternChange::QkFix, layers: GradientPaths::AllLayers };
const GRAD_DROP: Estimator = Estimator { patterns: PatternChange::Gradient, layers: GradientPaths::GradDrop };

/// A model and its unpatched runs on pairs of one length.
struct Literal<'a> {
    model: &'a Transformer<Tracked>,
    pairs: &'a PromptPairs,
    base: ActivationCache<Double>,
    source: ActivationCache<Double>,
    base_tokens: Vec<Vec<u32>>,
}

impl<'a> Literal<'a> {
    fn new(model: &'a Transformer<Tracked>, pairs: &'a PromptPairs, direction: Direction) -> Self {
        let inner = model.valid();
        let cache = |tokens: &[Vec<u32>]| {
            let mut recorder = Recorder::all();
            inner.forward(Run::tokens(inner.tokens(tokens).unwrap()), &mut recorder).unwrap();
            recorder.into_cache()
        };
        let (base, source) = match direction {
            Direction::Noising => (pairs.clean(), pairs.corrupted()),
            Direction::Denoising => (pairs.corrupted(), pairs.clean()),
        };
        Self { model, pairs, base: cache(&base), source: cache(&source), base_tokens: base }
    }

    /// Returns the gradient of the summed metric at every hook point of the base run, in a run that
    /// `hook` changes after the gradient is taken.
    fn gradients(&self, hook: impl Hook<Tracked>) -> ActivationCache<Double> {
        let metric = LogitDiff::new(self.pairs);
        let readout = Readout { positions: ReadPositions::Each(self.pairs.ends()), columns: metric.reads().columns };
        let mut probes = GradientProbes::all();
        let run = Run::tokens(self.model.tokens(&self.base_tokens).unwrap()).with_readout(readout);
        let logits = self.model.forward(run, (&mut probes, hook)).unwrap();
        let [rows, _, columns] = logits.dims();
        let prompts: Vec<usize> = (0..rows).collect();
        probes.gradients(&metric.evaluate(logits.reshape([rows, columns]), &prompts).sum())
    }

    /// Returns the change of the patterns of a layer, times `at_pattern`, when one query or key is
    /// that of the source run, `[prompt, head, pos]`.
    fn of_pattern(&self, site: Site, layer: usize, at_pattern: &Tensor<Double, 4>) -> ArrayD<f64> {
        let model = self.model.valid();
        let point = HookPoint::block(layer, site);
        let source = self.source.get::<4>(point).unwrap();
        let base = self.base.block::<4>(layer, Site::Pattern).unwrap();
        let [prompts, width, heads, _] = source.dims();
        let mut effects = ArrayD::zeros(IxDyn(&[prompts, heads, width]));
        for head in 0..heads {
            for pos in 0..width {
                let here = s![.., pos..pos + 1, head..head + 1, ..];
                let mut recorder = Recorder::filtered(move |point| point == Site::Pattern.at(layer));
                let replaced = |x: Tensor<Double, 4>| x.slice_assign(here, source.clone().slice(here));
                let run = Run::tokens(model.tokens(&self.base_tokens).unwrap());
                model.forward(run, (&mut edit(point, replaced), &mut recorder)).unwrap();
                let patched = recorder.into_cache().block::<4>(layer, Site::Pattern).unwrap();
                let effect = (patched - base.clone()) * at_pattern.clone();
                for (prompt, effect) in by_prompt(effect).into_iter().enumerate() {
                    effects[[prompt, head, pos]] = effect;
                }
            }
        }
        effects
    }

    /// Returns the estimates of a kind of node at these gradients, `[prompt, layer, unit, pos]`.
    fn estimates(&self, component: Component, patterns: PatternChange, at: &ActivationCache<Double>) -> ArrayD<f64> {
        let site = NodeKind::all(component).site();
        let fixed = patterns == PatternChange::QkFix && [Component::HeadQ, Component::HeadK].contains(&component);
        let of_layer = |layer: usize| match fixed {
            true => self.of_pattern(site, layer, &at.block::<4>(layer, Site::Pattern).unwrap()),
            false => {
                let point = HookPoint::block(layer, site);
                match point.axes().len() {
                    4 => {
                        let change = self.source.get::<4>(point).unwrap() - self.base.get::<4>(point).unwrap();
                        let product = (change * at.get::<4>(point).unwrap()).sum_dim(3);
                        let [prompts, pos, heads, _] = product.dims();
                        array(product.swap_dims(1, 2).reshape([prompts, heads, pos]))
                    }
                    _ => {
                        let change = self.source.get::<3>(point).unwrap() - self.base.get::<3>(point).unwrap();
                        array((change * at.get::<3>(point).unwrap()).swap_dims(1, 2))
                    }
                }
            }
        };
        let layers: Vec<ArrayD<f64>> = (0..self.model.config().n_layers).map(of_layer).collect();
        let views: Vec<_> = layers.iter().map(|layer| layer.view()).collect();
        ndarray::stack(Axis(1), &views).unwrap()
    }

    /// Returns the estimates of GradDrop, `[prompt, layer, unit]`, with the positions of a node
    /// together, or `[prompt, layer, unit, pos]`.
    fn dropped(&self, kind: NodeKind, patterns: PatternChange) -> ArrayD<f64> {
        let layers = self.model.config().n_layers;
        let of_layer = |layer: usize| {
            let found = self.estimates(kind.component, patterns, &self.gradients(Detached { layer }));
            let found = if kind == NodeKind::all(kind.component) { found.sum_axis(Axis(3)) } else { found };
            found.mapv(f64::abs)
        };
        (0..layers).map(of_layer).reduce(|sum, sizes| sum + sizes).unwrap() / (layers - 1) as f64
    }
}

/// Detaches the attention and the MLP of one layer.
struct Detached {
    layer: usize,
}

impl Hook<Tracked> for Detached {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<Tracked, D>) -> Tensor<Tracked, D> {
        match [Site::AttnOut, Site::MlpOut].iter().any(|site| point == site.at(self.layer)) {
            true => activation.detach(),
            false => activation,
        }
    }
}

fn array<const D: usize>(x: Tensor<Double, D>) -> ArrayD<f64> {
    let shape = x.dims();
    ArrayD::from_shape_vec(IxDyn(&shape), x.into_data().iter::<f64>().collect()).unwrap()
}

/// Returns the sum of the numbers of each prompt.
fn by_prompt(x: Tensor<Double, 4>) -> Vec<f64> {
    array(x).outer_iter().map(|of_prompt| of_prompt.sum()).collect()
}

fn direction(is_noising: bool) -> Direction {
    if is_noising { Direction::Noising } else { Direction::Denoising }
}

fn model(config: &TransformerConfig, seed: u64) -> Transformer<Tracked> {
    // With residual streams of 8 numbers the norm is nearly a step.
    let config = TransformerConfig { norm_eps: 0.1, ..config.clone() };
    Transformer::random(&config, seed, &Default::default())
}

/// Returns the pairs cut to the length of the shortest, because the literal runs have no padding.
fn of_one_length(pairs: &PromptPairs) -> PromptPairs {
    let shortest = pairs.lengths().into_iter().min().unwrap();
    let mut pairs: Vec<_> = pairs.pairs().to_vec();
    for pair in &mut pairs {
        pair.clean.truncate(shortest);
        pair.corrupted.truncate(shortest);
    }
    PromptPairs::new(pairs).unwrap()
}

/// Compares effects with literal numbers of the same shape. Effects are stored in float32.
fn assert_same(found: &Effects, expected: &ArrayD<f64>, what: &str) {
    assert_eq!(found.values.shape(), expected.shape(), "{what}");
    for ((place, found), expected) in found.values.indexed_iter().zip(expected) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 1e-7 + 2e-6 * expected.abs(), "{what} {place:?}: {found} is not {expected}");
    }
}

fn by_position(components: &[Component]) -> Vec<NodeKind> {
    components.iter().map(|&component| NodeKind::by_position(component)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_qk_fix_is_the_change_of_the_pattern_times_its_gradient(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
        batch in 1_usize..5,
    ) {
        let (model, pairs, direction) = (model(&config, seed), of_one_length(&pairs), direction(noising));
        let literal = Literal::new(&model, &pairs, direction);
        let at = literal.gradients(());
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { gradient_batch: batch, ..Execution::default() };
        let components = [Component::HeadQ, Component::HeadK];
        let kinds = [by_position(&components), components.map(NodeKind::all).to_vec()].concat();
        let found = attribution_patching_by(
            &model, asked(&pairs, &metric).in_metric_units(), &kinds, QK_FIX, direction, &execution,
        ).unwrap();
        for (number, component) in components.into_iter().enumerate() {
            let expected = literal.estimates(component, PatternChange::QkFix, &at);
            let what = format!("{component} {direction} {config:?}");
            assert_same(&found.effects[number], &expected, &what);
            assert_same(&found.effects[2 + number], &expected.sum_axis(Axis(3)), &what);
        }
    }

}

proptest! {
    // A case takes a literal run for each layer, head and position.
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grad_drop_is_the_mean_size_without_one_layer(
        config in any_family().prop_filter("GradDrop needs two layers", |config| config.n_layers > 1),
        pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(), fixed in any::<bool>(),
    ) {
        let (model, pairs, direction) = (model(&config, seed), of_one_length(&pairs), direction(noising));
        let literal = Literal::new(&model, &pairs, direction);
        let metric = LogitDiff::new(&pairs);
        let estimator = if fixed { Estimator::atp_star() } else { GRAD_DROP };
        let components =
            [Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadZ, Component::MlpPost];
        let all = components.map(NodeKind::all).to_vec();
        for kinds in [by_position(&components), all] {
            let question = asked(&pairs, &metric).in_metric_units();
            let found =
                attribution_patching_by(&model, question, &kinds, estimator, direction, &Execution::default()).unwrap();
            for (kind, found) in kinds.into_iter().zip(&found.effects) {
                let expected = literal.dropped(kind, estimator.patterns);
                assert_same(found, &expected, &format!("{kind} {direction} {config:?}"));
            }
        }
    }
}

#[test]
fn grad_drop_refuses_the_residual_stream_and_models_of_one_layer() {
    let pair = PromptPair { clean: vec![1, 2], corrupted: vec![1, 3], answers: vec![4], wrong_answers: vec![5] };
    let pairs = PromptPairs::new(vec![pair]).unwrap();
    let refused = |layers, component| {
        let model = model(&TransformerConfig::gpt2(layers, 2, 8, 11, 6), 0);
        let (metric, kinds) = (LogitDiff::new(&pairs), [NodeKind::all(component)]);
        let execution = Execution::default();
        let found =
            attribution_patching_by(&model, asked(&pairs, &metric), &kinds, GRAD_DROP, Direction::Noising, &execution);
        found.unwrap_err()
    };
    let stream = refused(2, Component::ResidPre);
    assert!(matches!(stream, AnalysisError::UnsupportedNode { .. }));
    assert!(stream.to_string().contains("GradDrop does not take resid_pre"), "{stream}");
    assert!(refused(1, Component::HeadZ).to_string().contains("the model has one layer"));
}
