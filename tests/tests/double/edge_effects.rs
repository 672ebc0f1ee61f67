//! Compares effects of edges with literal runs on random models of every family, in float64: an
//! exact effect with a run whose reader alone sees the writer's change, an estimate with the slope
//! of such runs.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::{Tensor, s};
use burn_ndarray::NdArray;
use ndarray::Axis;
use proptest::prelude::*;
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::edges::{
    Edge, EdgeEffects, EdgeGraph, GradientsAt, Reader, Writer, attribute_all_edges, patch_all_edges, patch_edges,
};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::node::{Component, Node, NodeKind};
use rewire_analysis::path::{FreezePolicy, Input, Path, Receiver, patch_paths};
use rewire_analysis::run::{Direction, Execution, clean_logits};
use rewire_analysis::{AnalysisError, Reduce};
use rewire_hooks::{ActivationCache, HookPoint, Patch, Recorder, Site, edit};
use rewire_model::{HeadInput, ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{KlDivergence, LogitDiff, Metric, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::random::{any_family, any_pairs};

type Double = NdArray<f64>;

/// The run that an edge changes: where it starts, and the output that is held constant in it.
struct Start {
    embedded: Tensor<Double, 3>,
    held: Option<(HookPoint, Tensor<Double, 3>)>,
}

/// A model, its unpatched runs on some pairs, and the metric that literal runs evaluate.
struct Literal<'a> {
    model: Transformer<Double>,
    pairs: &'a PromptPairs,
    base: ActivationCache<Double>,
    source: ActivationCache<Double>,
}

impl<'a> Literal<'a> {
    fn new(model: &Transformer<Autodiff<Double>>, pairs: &'a PromptPairs, direction: Direction) -> Self {
        let model = model.valid();
        let cache = |tokens: Vec<Vec<u32>>| {
            let mut recorder = Recorder::all();
            model.forward(Run::tokens(model.tokens(&tokens).unwrap()), &mut recorder).unwrap();
            recorder.into_cache()
        };
        let [clean, corrupted] = [cache(pairs.clean()), cache(pairs.corrupted())];
        let (base, source) = match direction {
            Direction::Noising => (clean, corrupted),
            Direction::Denoising => (corrupted, clean),
        };
        Self { model, pairs, base, source }
    }

    fn start(&self) -> Start {
        Start { embedded: self.between(HookPoint::block(0, Site::ResidPre), 1.0), held: None }
    }

    /// Returns an activation between the source run (0) and the base run (1).
    fn between(&self, point: HookPoint, at: f64) -> Tensor<Double, 3> {
        self.base.get::<3>(point).unwrap() * at + self.source.get::<3>(point).unwrap() * (1.0 - at)
    }

    /// Returns `step` times the change of a writer's output.
    fn change(&self, writer: Writer, step: f64) -> Tensor<Double, 3> {
        let difference = |point| self.source.get::<3>(point).unwrap() - self.base.get::<3>(point).unwrap();
        match writer {
            Writer::Input => difference(HookPoint::Embed) * step,
            Writer::Mlp(layer) => difference(HookPoint::block(layer, Site::MlpOut)) * step,
            Writer::Head(head) => {
                let results = |cache: &ActivationCache<Double>| {
                    let results = cache.head_results(head.layer, self.model.w_o(head.layer)).unwrap();
                    results.narrow(2, head.head, 1).squeeze_dim::<3>(2)
                };
                let change = (results(&self.source) - results(&self.base)) * step;
                if !self.model.config().post_norms {
                    return change;
                }
                let before = self.base.block::<3>(head.layer, Site::AttnBeforeNorm).unwrap();
                let norm = |x| self.model.after_attention_norm(head.layer, x);
                norm(before.clone() + change) - norm(before)
            }
        }
    }

    /// Returns the metric of each prompt if `reader` alone sees its input moved by `change`.
    fn metric(&self, start: &Start, reader: Reader, change: Tensor<Double, 3>) -> Vec<f64> {
        let stream = |layer: usize, site: Site| self.recorded(start, layer, site) + change.clone();
        let config = self.model.config();
        match reader {
            Reader::Logits => {
                let mut logits =
                    edit(Site::ResidPost.at(config.n_layers - 1), |x: Tensor<Double, 3>| x + change.clone());
                self.run(start, &mut logits)
            }
            Reader::Mlp(layer) => {
                let site = if config.parallel_block { Site::ResidPre } else { Site::ResidMid };
                let normalized = self.model.mlp_norm(layer, stream(layer, site), &mut ());
                self.run(start, &mut Patch::new().replace(Site::Ln2Normalized.at(layer), normalized))
            }
            Reader::Head(head, input) => {
                let (layer, site) = (head.layer, [Site::Q, Site::K, Site::V][input as usize]);
                let of = match input {
                    HeadInput::Q => head.head,
                    _ => head.head / config.heads_per_key_value_head(),
                };
                let normalized = self.model.attention_norm(layer, stream(layer, Site::ResidPre), &mut ());
                let values = self.model.head_inputs(layer, input, &[of], normalized);
                let moved = |x: Tensor<Double, 4>| x.slice_assign(s![.., .., of..of + 1, ..], values.clone());
                // A first run shows what the head would mix; the second gives it to that head
                // alone.
                let mut recorder = Recorder::filtered(move |point| point == Site::Z.at(layer));
                self.run(start, (&mut edit(site.at(layer), moved), &mut recorder));
                let z = recorder.into_cache().block::<4>(layer, Site::Z).unwrap().narrow(2, head.head, 1);
                let of_head = s![.., .., head.head..head.head + 1, ..];
                self.run(start, &mut edit(Site::Z.at(layer), |x: Tensor<Double, 4>| x.slice_assign(of_head, z.clone())))
            }
        }
    }

    fn recorded(&self, start: &Start, layer: usize, site: Site) -> Tensor<Double, 3> {
        let mut recorder = Recorder::filtered(move |point| point == site.at(layer));
        self.run(start, &mut recorder);
        recorder.into_cache().block(layer, site).unwrap()
    }

    fn run(&self, start: &Start, hook: impl rewire_hooks::Hook<Double>) -> Vec<f64> {
        let metric = LogitDiff::new(self.pairs);
        let readout = Readout { positions: ReadPositions::Each(self.pairs.ends()), columns: metric.reads().columns };
        let run = Run::from_residual(0, start.embedded.clone()).with_readout(readout);
        let held = start.held.iter().fold(Patch::new(), |patch, (point, x)| patch.replace(*point, x.clone()));
        let logits = self.model.forward(run, (held, hook)).unwrap();
        let [rows, _, columns] = logits.dims();
        let prompts: Vec<usize> = (0..rows).collect();
        metric.evaluate(logits.reshape([rows, columns]), &prompts).into_data().iter::<f64>().collect()
    }

    /// Returns the effect of an edge on each prompt.
    fn effect(&self, edge: Edge) -> Vec<f64> {
        let start = self.start();
        let unpatched = self.run(&start, ());
        let patched = self.metric(&start, edge.reader, self.change(edge.writer, 1.0));
        patched.iter().zip(unpatched).map(|(patched, unpatched)| patched - unpatched).collect()
    }

    /// Returns the slope of the metric of each prompt along an edge, at the run from `start`.
    fn slope(&self, start: &Start, edge: Edge) -> Vec<f64> {
        let step = 1e-5;
        let [up, down] = [step, -step].map(|step| self.metric(start, edge.reader, self.change(edge.writer, step)));
        up.iter().zip(down).map(|(up, down)| (up - down) / (2.0 * step)).collect()
    }
}

fn direction(is_noising: bool) -> Direction {
    if is_noising { Direction::Noising } else { Direction::Denoising }
}

/// Returns the edges at these shares of the list of all edges.
fn chosen(graph: &EdgeGraph, shares: &[f64]) -> Vec<Edge> {
    let all: Vec<Edge> = graph.edges().collect();
    shares.iter().map(|share| all[(share * all.len() as f64) as usize]).collect()
}

/// Returns the effects of an edge, by prompt.
fn of_edge(found: &EdgeEffects, edge: Edge) -> Vec<f64> {
    let [writer, reader] = found.graph.place(&edge).unwrap();
    found.values.outer_iter().map(|of_prompt| f64::from(of_prompt[[writer, reader]])).collect()
}

fn assert_same(found: &[f64], expected: &[f64], [absolute, relative]: [f64; 2], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(error <= absolute + relative * expected.abs(), "{what}: {found} is not {expected}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Effects are stored in float32: their relative error is at most 6e-8. Metrics of up to 10 are
/// stored in float32 before they are subtracted.
const EXACT: [f64; 2] = [3e-6, 1e-6];
/// Slopes have the error of central differences.
const SLOPE: [f64; 2] = [1e-7, 2e-6];

fn model(config: &TransformerConfig, seed: u64) -> Transformer<Autodiff<Double>> {
    // With residual streams of 8 numbers the norm is nearly a step.
    let config = TransformerConfig { norm_eps: 0.1, ..config.clone() };
    Transformer::random(&config, seed, &Default::default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_exact_effect_is_that_of_a_run_whose_reader_alone_sees_the_change(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
        shares in prop::collection::vec(0.0..1.0, 12), budget in 1_usize..200, batch in 1_usize..5,
    ) {
        let (model, direction) = (model(&config, seed), direction(noising));
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { token_budget: budget, prompt_batch: batch, ..Execution::default() };
        let found =
            patch_all_edges(&model.valid(), asked(&pairs, &metric), Reduce::PerPrompt, direction, &execution).unwrap();
        let literal = Literal::new(&model, &pairs, direction);
        let edges = chosen(&found.graph, &shares);
        for &edge in &edges {
            assert_same(&of_edge(&found, edge), &literal.effect(edge), EXACT, &format!("{edge} of {config:?}"));
        }
        // Chosen edges alone have the same effects.
        let alone = patch_edges(&model.valid(), asked(&pairs, &metric), &edges, direction, &execution).unwrap();
        for (number, &edge) in edges.iter().enumerate() {
            let alone: Vec<f64> = alone.values.column(number).iter().map(|effect| f64::from(*effect)).collect();
            assert_same(&alone, &of_edge(&found, edge), EXACT, &format!("{edge} alone"));
        }
        // Places without an edge have no effect.
        let of_edges = found.graph.places().filter(|[writer, reader]| found.values[[0, *writer, *reader]] != 0.0).count();
        prop_assert_eq!(of_edges, found.values.index_axis(Axis(0), 0).iter().filter(|effect| **effect != 0.0).count());
    }

    #[test]
    fn an_estimate_is_the_slope_of_runs_whose_reader_alone_sees_the_change(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
        shares in prop::collection::vec(0.0..1.0, 8), batch in 1_usize..5,
    ) {
        let (model, direction) = (model(&config, seed), direction(noising));
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { gradient_batch: batch, ..Execution::default() };
        let estimate = |at| {
            attribute_all_edges(&model, asked(&pairs, &metric), at, Reduce::PerPrompt, direction, &execution)
        };
        let Ok(found) = estimate(GradientsAt::Base) else { return Ok(()) };
        let literal = Literal::new(&model, &pairs, direction);
        let line = Quadrature { rule: Rule::RiemannLeft, steps: 2 };
        let [inputs, activations] =
            [GradientsAt::Inputs(line), GradientsAt::Activations(line)].map(|at| estimate(at).unwrap());
        for edge in chosen(&found.graph, &shares) {
            let slope = literal.slope(&literal.start(), edge);
            assert_same(&of_edge(&found, edge), &slope, SLOPE, &format!("{edge} of {config:?}"));
            // The line goes from the corrupted to the clean run, in both directions.
            let from = |point: HookPoint, at: f64| {
                let at = if noising { at } else { 1.0 - at };
                match point.site() {
                Some(Site::ResidPre) => Start { embedded: literal.between(point, at), held: None },
                _ => Start { held: Some((point, literal.between(point, at))), ..literal.start() },
                }
            };
            let mean = |points: &[HookPoint]| {
                let runs = points.iter().flat_map(|&point| [0.0, 0.5].map(|at| literal.slope(&from(point, at), edge)));
                let runs: Vec<Vec<f64>> = runs.collect();
                (0..pairs.len()).map(|p| runs.iter().map(|run| run[p]).sum::<f64>() / runs.len() as f64).collect::<Vec<_>>()
            };
            let input = [HookPoint::block(0, Site::ResidPre)];
            assert_same(&of_edge(&inputs, edge), &mean(&input), SLOPE, &format!("{edge} along inputs"));
            let outputs = (0..config.n_layers).flat_map(|layer| [Site::AttnOut.at(layer), Site::MlpOut.at(layer)]);
            let all: Vec<HookPoint> = input.into_iter().chain(outputs).collect();
            assert_same(&of_edge(&activations, edge), &mean(&all), SLOPE, &format!("{edge} along activations"));
        }
    }

    #[test]
    fn the_estimates_of_a_writers_edges_sum_to_its_attribution(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
    ) {
        let (model, direction, execution) = (model(&config, seed), direction(noising), Execution::default());
        let metric = LogitDiff::new(&pairs);
        let question = asked(&pairs, &metric);
        let estimate = |at, reduce| attribute_all_edges(&model, question, at, reduce, direction, &execution);
        let Ok(found) = estimate(GradientsAt::Base, Reduce::PerPrompt) else { return Ok(()) };
        let nodes = [Component::ResidPre, Component::HeadZ, Component::MlpOut].map(NodeKind::all);
        let of_nodes = attribution_patching(&model, question, &nodes, direction, &execution).unwrap();
        let sums = found.values.mapv(f64::from).sum_axis(Axis(2));
        for ((prompt, number), &sum) in sums.indexed_iter() {
            let [input, heads, mlps] = [0, 1, 2].map(|kind| &of_nodes.effects[kind].values);
            let node = match found.graph.writer(number) {
                Writer::Input => input[[prompt, 0]],
                Writer::Head(head) => heads[[prompt, head.layer, head.head]],
                Writer::Mlp(layer) => mlps[[prompt, layer]],
            };
            let size = found.values.iter().fold(1e-3_f32, |size, value| size.max(value.abs()));
            assert_same(&[sum], &[f64::from(node)], [1e-6 * f64::from(size), 1e-5], &found.graph.writer(number).to_string());
        }
        // The mean over prompts is the mean of the effects of each prompt.
        let mean = estimate(GradientsAt::Base, Reduce::Mean).unwrap();
        prop_assert_eq!(mean.values.len_of(Axis(0)), 1);
        for (mean, of_prompts) in mean.mean().iter().zip(&found.mean()) {
            assert_same(&[f64::from(*mean)], &[f64::from(*of_prompts)], [1e-6, 1e-6], "mean");
        }
        // One gradient at the end of the line is the gradient of the base run.
        let rule = if noising { Rule::RiemannRight } else { Rule::RiemannLeft };
        let end = GradientsAt::Inputs(Quadrature { rule, steps: 1 });
        for (end, base) in estimate(end, Reduce::PerPrompt).unwrap().values.iter().zip(&found.values) {
            assert_same(&[f64::from(*end)], &[f64::from(*base)], [1e-9, 1e-6], "end of the line");
        }
    }

    #[test]
    fn an_exact_effect_is_that_of_the_direct_path_between_the_ends(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, shares in prop::collection::vec(0.0..1.0, 8),
    ) {
        let (model, direction, execution) = (model(&config, seed).valid(), Direction::Noising, Execution::default());
        let metric = LogitDiff::new(&pairs);
        let question = asked(&pairs, &metric);
        // A path to shared keys or values changes them for every head of the group.
        let receiver = |reader| match reader {
            Reader::Head(head, HeadInput::Q) => Some(Receiver::new(head.layer, Input::Q).head(head.head)),
            Reader::Head(..) if config.heads_per_key_value_head() > 1 => None,
            Reader::Head(head, input) => {
                let input = if input == HeadInput::K { Input::K } else { Input::V };
                Some(Receiver::new(head.layer, input).head(head.head))
            }
            Reader::Mlp(layer) => Some(Receiver::new(layer, Input::MlpIn)),
            Reader::Logits => Some(Receiver::logits(&config)),
        };
        let edges = chosen(&EdgeGraph::new(&config), &shares).into_iter();
        let (edges, paths): (Vec<Edge>, Vec<Path>) = edges
            .filter_map(|edge| {
                Some((edge, Path { senders: vec![sender(edge.writer)], receivers: vec![receiver(edge.reader)?] }))
            })
            .unzip();
        prop_assume!(!edges.is_empty());
        let found = patch_edges(&model, question, &edges, direction, &execution).unwrap();
        let expected = patch_paths(&model, question, &paths, FreezePolicy::direct(), direction, &execution).unwrap();
        for (found, expected) in found.values.iter().zip(&expected.values) {
            assert_same(&[f64::from(*found)], &[f64::from(*expected)], EXACT, "direct path");
        }
    }

    #[test]
    fn all_edges_into_the_logits_together_give_the_other_run(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, noising in any::<bool>(),
    ) {
        let (model, direction) = (model(&config, seed).valid(), direction(noising));
        let metric = LogitDiff::new(&pairs);
        let graph = EdgeGraph::new(&config);
        let senders = (0..graph.n_writers()).map(|number| sender(graph.writer(number))).collect();
        let all = Path { senders, receivers: vec![Receiver::logits(&config)] };
        let (question, execution) = (asked(&pairs, &metric), Execution::default());
        let found = patch_paths(&model, question, &[all], FreezePolicy::direct(), direction, &execution).unwrap();
        let (base, source) = match direction {
            Direction::Noising => (&found.baselines.clean, &found.baselines.corrupted),
            Direction::Denoising => (&found.baselines.corrupted, &found.baselines.clean),
        };
        for (prompt, effect) in found.values.column(0).iter().enumerate() {
            let expected = f64::from(source[prompt]) - f64::from(base[prompt]);
            assert_same(&[f64::from(*effect)], &[expected], EXACT, "all edges into the logits");
        }
    }
}

/// Returns the writer as a sender of paths.
fn sender(writer: Writer) -> Node {
    match writer {
        Writer::Input => Node::new(0, Component::ResidPre),
        Writer::Head(head) => Node::new(head.layer, Component::HeadZ).unit(head.head),
        Writer::Mlp(layer) => Node::new(layer, Component::MlpOut),
    }
}

fn pairs(is_same: bool) -> PromptPairs {
    let corrupted = if is_same { vec![1, 2, 3, 4] } else { vec![1, 9, 3, 4] };
    let pair = PromptPair { clean: vec![1, 2, 3, 4], corrupted, answers: vec![7], wrong_answers: vec![2] };
    PromptPairs::new(vec![pair]).unwrap()
}

#[test]
fn edges_of_a_run_with_itself_have_no_effect() {
    let model = model(&TransformerConfig::gpt2(2, 2, 16, 11, 8), 3);
    let pairs = pairs(true);
    let metric = LogitDiff::new(&pairs);
    let (direction, execution) = (Direction::Noising, Execution::default());
    let found =
        patch_all_edges(&model.valid(), asked(&pairs, &metric), Reduce::PerPrompt, direction, &execution).unwrap();
    assert!(found.values.iter().all(|effect| *effect == 0.0));
}

#[test]
fn a_metric_without_a_gradient_on_the_clean_run_needs_a_line() {
    let model = model(&TransformerConfig::gpt2(2, 2, 16, 11, 8), 3);
    let pairs = pairs(false);
    let metric = KlDivergence::new(&pairs, &clean_logits(&model.valid(), &pairs, 4).unwrap());
    let estimate = |at| {
        let execution = Execution::default();
        attribute_all_edges(&model, asked(&pairs, &metric), at, Reduce::Mean, Direction::Noising, &execution)
    };
    assert!(matches!(estimate(GradientsAt::Base), Err(AnalysisError::Stationary { .. })));
    let line = Quadrature { rule: Rule::RiemannLeft, steps: 3 };
    assert!(estimate(GradientsAt::Inputs(line)).unwrap().values.iter().any(|effect| effect.abs() > 1e-6));
}
