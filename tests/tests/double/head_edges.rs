//! Attribution of head edges on random models of every family: against finite differences of one
//! edge at a time, against gradients of the whole model, and against exact effects.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::{Int, Tensor, TensorData};
use burn_ndarray::NdArray;
use ndarray::{ArrayD, Axis, Ix4};
use proptest::prelude::*;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{EdgeAttributionOptions, NormJacobian, attribution_patching, edge_attribution};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::path::{Edge, FreezePolicy, Input, head_edges};
use rewire_analysis::run::{Direction, Execution};
use rewire_hooks::{ActivationCache, GradientProbes, Head, HookPoint, Patch, Recorder, Site};
use rewire_model::{HeadInput, HeadNorm, NormKind, ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::random::{any_family, any_pairs};

type Double = NdArray<f64>;

const INPUTS: [(HeadInput, Site); 3] = [(HeadInput::Q, Site::Q), (HeadInput::K, Site::K), (HeadInput::V, Site::V)];
const STEP: f64 = 1e-5;

/// A model with both runs of some pairs, in float64.
struct Runs {
    model: Transformer<Autodiff<Double>>,
    inner: Transformer<Double>,
    pairs: PromptPairs,
    base: ActivationCache<Double>,
    source: ActivationCache<Double>,
}

impl Runs {
    /// Runs a random model on pairs. Its weights are unprocessed, so that the norms have gains.
    fn new(config: &TransformerConfig, seed: u64, pairs: PromptPairs) -> Self {
        let model = Transformer::<Autodiff<Double>>::random(config, seed, &Default::default());
        let inner = model.valid();
        let cache = |tokens: &[Vec<u32>]| {
            let mut recorder = Recorder::all();
            inner.forward(Run::tokens(inner.tokens(tokens).unwrap()), &mut recorder).unwrap();
            recorder.into_cache()
        };
        let (base, source) = (cache(&pairs.corrupted()), cache(&pairs.clean()));
        Self { model, inner, pairs, base, source }
    }

    fn base<const D: usize>(&self, layer: usize, site: Site) -> Tensor<Double, D> {
        self.base.block(layer, site).unwrap()
    }

    /// Returns the estimates, `[prompt, layer_end, head_end, input, layer_start, head_start, pos]`.
    fn edges(&self, norm: NormJacobian) -> ArrayD<f32> {
        let metric = LogitDiff::new(&self.pairs);
        let options = EdgeAttributionOptions { norm, reduce: Reduce::PerPrompt };
        let question = asked(&self.pairs, &metric);
        edge_attribution(&self.model, question, options, Direction::Denoising, &Execution::default()).unwrap().values
    }

    /// Returns the derivative of the residual stream when a head's output moves from the base run
    /// to the source run, `[prompt, pos, d_model]`.
    fn written(&self, [layer, head]: [usize; 2], norm: NormJacobian) -> Tensor<Double, 3> {
        let result = |cache: &ActivationCache<Double>| {
            cache.head_results(layer, self.inner.w_o(layer)).unwrap().narrow(2, head, 1).squeeze_dim::<3>(2)
        };
        let change = result(&self.source) - result(&self.base);
        if !self.inner.config().post_norms {
            return change;
        }
        match norm {
            NormJacobian::Exact => {
                let before = self.base::<3>(layer, Site::AttnBeforeNorm);
                let at = |step: f64| self.inner.after_attention_norm(layer, before.clone() + change.clone() * step);
                (at(STEP) - at(-STEP)) / (2.0 * STEP)
            }
            NormJacobian::Frozen => {
                let gain = self.inner.after_attention_norm_gain(layer).unwrap();
                change / self.base::<3>(layer, Site::Ln1PostScale) * gain.unsqueeze_dims(&[0, 1])
            }
        }
    }

    /// Returns queries, keys or values before rotation if they read the residual stream `x`,
    /// `[prompt, pos, head, d_head]`, with one copy of keys and values for each attention head.
    fn inputs(&self, layer: usize, input: HeadInput, x: Tensor<Double, 3>, norm: NormJacobian) -> Tensor<Double, 4> {
        let normalized = |x: Tensor<Double, 3>| {
            let mut scale = Patch::new();
            if norm == NormJacobian::Frozen {
                scale = scale.replace(HookPoint::block(layer, Site::Ln1Scale), self.base::<3>(layer, Site::Ln1Scale));
            }
            self.inner.attention_norm(layer, x, &mut scale)
        };
        let config = self.inner.config();
        let site = INPUTS[input as usize].1;
        let heads: Vec<usize> = (0..config.heads_at(site)).collect();
        let found = match (norm, self.inner.head_norm(layer, input, normalized(x.clone()))) {
            (NormJacobian::Frozen, Some(HeadNorm { input: moved, gain, .. })) => {
                let base = normalized(self.base(layer, Site::ResidPre));
                let scale = self.inner.head_norm(layer, input, base).unwrap().scale;
                let [prompts, width, ..] = moved.dims();
                let normed = moved / scale * gain.unwrap().unsqueeze_dims(&[0, 1, 2]);
                // One norm may divide all heads together.
                normed.reshape([prompts, width, heads.len(), config.d_head])
            }
            _ => self.inner.head_inputs(layer, input, &heads, normalized(x)),
        };
        let copies = config.n_heads / heads.len();
        let of_head: Vec<i32> = (0..config.n_heads).map(|head| (head / copies) as i32).collect();
        found.select(2, Tensor::<Double, 1, Int>::from_data(of_head.as_slice(), &Default::default()))
    }

    /// Returns the metric of each prompt if one input of one head at one position reads the
    /// residual stream `moved`, and all else reads that of the base run.
    fn metric(
        &self,
        [layer, head, pos]: [usize; 3],
        input: HeadInput,
        moved: Tensor<Double, 3>,
        norm: NormJacobian,
    ) -> Vec<f64> {
        let stream = self.base::<3>(layer, Site::ResidPre);
        let [prompts, width, _] = stream.dims();
        let [n_heads, d_head] = [self.inner.config().n_heads, self.inner.config().d_head];
        let positions: Vec<usize> = (0..prompts).flat_map(|_| 0..width).collect();
        let mask = |of_pos: &dyn Fn(usize) -> bool| {
            let inside = |flat: usize| flat / d_head % n_heads == head && of_pos(flat / (d_head * n_heads) % width);
            let inside: Vec<bool> = (0..prompts * width * n_heads * d_head).map(inside).collect();
            let data = TensorData::new(inside, [prompts, width, n_heads, d_head]);
            Tensor::<Double, 4, burn::tensor::Bool>::from_data(data, &Default::default())
        };
        let read = |of: HeadInput| {
            let base = self.inputs(layer, of, stream.clone(), norm);
            let read = match of == input {
                true => base.mask_where(mask(&|at| at == pos), self.inputs(layer, of, moved.clone(), norm)),
                false => base,
            };
            match of {
                HeadInput::V => read,
                _ => self
                    .inner
                    .after_rotary(layer, read.reshape([prompts * width, 1, n_heads, d_head]), &positions)
                    .reshape([prompts, width, n_heads, d_head]),
            }
        };
        let z = self.inner.attend(layer, read(HeadInput::Q), read(HeadInput::K), read(HeadInput::V), None);
        let mut patch = Patch::new().replace_where(HookPoint::block(layer, Site::Z), z, mask(&|_| true));
        let values = self.run(&self.inner, &mut patch).into_data().iter::<f64>().collect();
        patch.finish().unwrap();
        values
    }

    /// Returns the metric of each corrupted prompt.
    fn run<B: burn::tensor::backend::Backend>(
        &self,
        model: &Transformer<B>,
        hook: impl rewire_hooks::Hook<B>,
    ) -> Tensor<B, 1> {
        let metric = LogitDiff::new(&self.pairs);
        let readout = Readout { positions: ReadPositions::Each(self.pairs.ends()), columns: metric.reads().columns };
        let run = Run::tokens(model.tokens(&self.pairs.corrupted()).unwrap()).with_readout(readout);
        let logits = model.forward(run, hook).unwrap();
        let [rows, _, columns] = logits.dims();
        let prompts: Vec<usize> = (0..rows).collect();
        metric.evaluate(logits.reshape([rows, columns]), &prompts)
    }

    /// Returns the metric's gradients on the corrupted prompts at these sites of every layer.
    fn gradients(&self, sites: &'static [Site]) -> ActivationCache<Double> {
        let mut probes = GradientProbes::filtered(move |p: HookPoint| p.site().is_some_and(|s| sites.contains(&s)));
        let metric = self.run(&self.model, &mut probes);
        probes.gradients(&metric.sum())
    }

    /// Compares one edge at one position with finite differences, for every prompt, input of the
    /// end head and treatment of norms. Returns the largest absolute effect.
    fn check_edge(&self, [end, head_end]: [usize; 2], start: [usize; 2], pos: usize) -> f64 {
        let mut largest = 0.0_f64;
        for norm in [NormJacobian::Exact, NormJacobian::Frozen] {
            let found = self.edges(norm);
            let change = self.written(start, norm);
            for (index, (input, _)) in INPUTS.into_iter().enumerate() {
                let at = |step: f64| {
                    let moved = self.base::<3>(end, Site::ResidPre) + change.clone() * step;
                    self.metric([end, head_end, pos], input, moved, norm)
                };
                let (up, down) = (at(STEP), at(-STEP));
                for prompt in 0..self.pairs.len() {
                    let numeric = (up[prompt] - down[prompt]) / (2.0 * STEP);
                    let analytic = f64::from(found[[prompt, end, head_end, index, start[0], start[1], pos]]);
                    largest = largest.max(numeric.abs());
                    // Effects are stored in float32.
                    let tolerance = 1e-8 + 2e-6 * numeric.abs();
                    assert!(
                        (numeric - analytic).abs() < tolerance,
                        "{norm} {input:?} {start:?} to {end} {head_end} at {pos}: {analytic}, not {numeric}"
                    );
                }
            }
        }
        largest
    }
}

/// Draws models with at least two layers.
fn any_deep() -> impl Strategy<Value = TransformerConfig> {
    any_family().prop_map(|config| TransformerConfig { n_layers: config.n_layers.max(2), ..config })
}

/// Returns two pairs, each with prompts that differ in one token.
fn pairs() -> PromptPairs {
    let pair = |clean: &[u32], corrupted: &[u32]| PromptPair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        answers: vec![7],
        wrong_answers: vec![2],
    };
    PromptPairs::new(vec![pair(&[1, 2, 3, 4], &[1, 9, 3, 4]), pair(&[5, 6, 7, 8], &[5, 6, 1, 8])]).unwrap()
}

#[test]
fn head_edges_match_finite_differences_in_every_family() {
    for family in rewire_model::Architecture::ALL {
        let config = TransformerConfig { n_layers: 3, ..TransformerConfig::tiny(family) };
        let runs = Runs::new(&config, 5, pairs());
        let largest = [([1, 1], [0, 2]), ([2, 3], [0, 0]), ([2, 0], [1, 1])].into_iter().flat_map(|(end, start)| {
            let runs = &runs;
            (1..4).map(move |pos| runs.check_edge(end, start, pos))
        });
        assert!(largest.fold(0.0, f64::max) > 1e-4, "{family:?}: no edge has an effect");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn head_edges_match_finite_differences(
        config in any_deep(),
        pairs in any_pairs(),
        seed in 0_u64..1000,
        draws in prop::array::uniform5(0_usize..1000),
    ) {
        let [end, head_end, start, head_start, pos] = draws;
        let end = 1 + end % (config.n_layers - 1);
        let n_heads = config.n_heads;
        let pos = pos % pairs.width();
        let runs = Runs::new(&config, seed, pairs);
        runs.check_edge([end, head_end % n_heads], [start % end, head_start % n_heads], pos);
    }

    /// What all inputs of a layer read arrives through the output of the norm before them.
    #[test]
    fn edges_into_a_layer_sum_to_the_effect_through_its_norm(
        config in any_deep(),
        pairs in any_pairs(),
        seed in 0_u64..1000,
    ) {
        let (layers, heads) = (config.n_layers, config.n_heads);
        let runs = Runs::new(&config, seed, pairs);
        let edges = runs.edges(NormJacobian::Exact);
        let gradients = runs.gradients(&[Site::Ln1Normalized]);
        for end in 1..layers {
            let stream = runs.base::<3>(end, Site::ResidPre);
            let gradient = gradients.block::<3>(end, Site::Ln1Normalized).unwrap();
            for (start, head) in (0..end).flat_map(|start| (0..heads).map(move |head| (start, head))) {
                let change = runs.written([start, head], NormJacobian::Exact);
                let at = |step: f64| runs.inner.attention_norm(end, stream.clone() + change.clone() * step, &mut ());
                let moved = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                // [prompt, pos]
                let expected: Vec<f64> = (moved * gradient.clone()).sum_dim(2).into_data().iter().collect();
                // [prompt, head_end, input, pos]
                let into = edges.index_axis(Axis(1), end);
                let into = into.index_axis(Axis(3), start);
                let into = into.index_axis(Axis(3), head).into_dimensionality::<Ix4>().unwrap();
                let size = into.mapv(|v| f64::from(v.abs())).sum_axis(Axis(2)).sum_axis(Axis(1));
                let sums = into.mapv(f64::from).sum_axis(Axis(2)).sum_axis(Axis(1));
                for ((sum, size), expected) in sums.iter().zip(&size).zip(expected) {
                    prop_assert!((sum - expected).abs() <= 1e-8 + 1e-6 * size, "{sum} is not {expected}");
                }
            }
        }
    }

    /// A head acts through later heads, through MLPs, and through the last residual stream.
    #[test]
    fn edges_and_the_rest_sum_to_a_heads_attribution(
        config in any_deep(),
        pairs in any_pairs(),
        seed in 0_u64..1000,
    ) {
        // In a parallel block, no hook point separates the MLP's input from that of attention.
        let config = TransformerConfig { parallel_block: false, ..config };
        let (layers, heads) = (config.n_layers, config.n_heads);
        let runs = Runs::new(&config, seed, pairs);
        let edges = runs.edges(NormJacobian::Exact);
        let metric = LogitDiff::new(&runs.pairs);
        let kinds = [NodeKind::by_position(Component::HeadZ)];
        let (question, execution) = (asked(&runs.pairs, &metric), Execution::default());
        let nodes = attribution_patching(&runs.model, question, &kinds, Direction::Denoising, &execution).unwrap();
        let gradients = runs.gradients(&[Site::ResidMid, Site::ResidPost]);
        let at = |layer, site| gradients.block::<3>(layer, site).unwrap();
        for (start, head) in (0..layers).flat_map(|start| (0..heads).map(move |head| (start, head))) {
            let through_mlps = (start..layers).map(|layer| at(layer, Site::ResidMid) - at(layer, Site::ResidPost));
            let rest = through_mlps.fold(at(layers - 1, Site::ResidPost), |sum, part| sum + part);
            let change = runs.written([start, head], NormJacobian::Exact);
            let rest: Vec<f64> = (change * rest).sum_dim(2).into_data().iter().collect();
            let width = runs.pairs.width();
            for (prompt, pos) in (0..runs.pairs.len()).flat_map(|prompt| (0..width).map(move |pos| (prompt, pos))) {
                // [layer_end, head_end, input]
                let from = edges.index_axis(Axis(0), prompt);
                let from = from.index_axis(Axis(3), start);
                let from = from.index_axis(Axis(3), head);
                let from = from.index_axis(Axis(3), pos);
                let node = f64::from(nodes.effects[0].values[[prompt, start, head, pos]]);
                let rest = rest[prompt * width + pos];
                let sum = from.iter().map(|v| f64::from(*v)).sum::<f64>() + rest;
                let size = from.iter().map(|v| f64::from(v.abs())).sum::<f64>() + rest.abs();
                prop_assert!((sum - node).abs() <= 1e-8 + 1e-6 * size, "{sum} is not {node}");
            }
        }
    }
}

/// The scales of norms with this epsilon are nearly constant, and in a parallel block nothing
/// nonlinear follows the values of the last layer.
#[test]
fn edges_into_values_are_exact_in_a_linear_model() {
    let neox = TransformerConfig::neox(2, 4, 16, 11, 8);
    let rms = TransformerConfig { norm: NormKind::Rms, ..neox.clone() };
    for config in [neox, rms].into_iter().flat_map(|config| {
        [None, Some(2), Some(1)].map(|key_value_heads| TransformerConfig { key_value_heads, ..config.clone() })
    }) {
        let config = TransformerConfig { norm_eps: 500.0, ..config };
        let runs = Runs::new(&config, 5, pairs());
        let metric = LogitDiff::new(&runs.pairs);
        let sharing = config.heads_per_key_value_head();
        let all = (0..4).flat_map(|from| (0..4).map(move |to| (from, to)));
        let all: Vec<Edge> =
            all.map(|(from, to)| Edge { from: Head::new(0, from), to: Head::new(1, to), input: Input::V }).collect();
        let (question, direction) = (asked(&runs.pairs, &metric), Direction::Denoising);
        let policy = FreezePolicy::path_patching();
        let exact = head_edges(&runs.inner, question, &all, policy, direction, &Execution::default()).unwrap();
        for norm in [NormJacobian::Exact, NormJacobian::Frozen] {
            let estimates = runs.edges(norm).sum_axis(Axis(6));
            let size = estimates.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            // Metrics are float32, so their differences have errors of about 1e-7 of the metrics.
            let noise = 1e-3 * size + 2e-7 * exact.outcome.baselines.clean[0].abs();
            assert!(noise < size / 50.0, "{norm}: {size} says nothing beside {noise}");
            for (index, edge) in all.iter().enumerate() {
                // A patched edge goes into the values that the whole group reads.
                let group = edge.to.head / sharing * sharing;
                for prompt in 0..runs.pairs.len() {
                    let of_group =
                        (group..group + sharing).map(|head| estimates[[prompt, 1, head, 2, 0, edge.from.head]]);
                    let (sum, exact) = (of_group.sum::<f32>(), exact.outcome.values[[prompt, index]]);
                    assert!((sum - exact).abs() <= noise, "{norm} {edge:?}: {sum} is not {exact} of {size}");
                }
            }
        }
    }
}
