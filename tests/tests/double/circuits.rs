//! Compares the metric of circuits with a literal run, node by node, on random models of every
//! family, in float64.

use burn::tensor::{Int, Tensor};
use burn_ndarray::NdArray;
use ndarray::Axis;
use proptest::prelude::*;
use rewire_analysis::edges::{Edge, EdgeGraph, EdgeSet, Reader, Writer, evaluate_circuits, patch_edges};
use rewire_analysis::run::{Direction, Execution, Intervention, MeanOver, mean_activations};
use rewire_hooks::{ActivationCache, Head, HookPoint, Patch, Recorder, Site};
use rewire_model::{HeadInput, ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, Metric, PromptPairs};
use rewire_tests::asked;
use rewire_tests::random::{any_family, any_pairs};

type Double = NdArray<f64>;
type Stream = Tensor<Double, 3>;

/// A run of a circuit in which every node is computed alone, from its own inputs.
struct Literal<'a> {
    model: &'a Transformer<Double>,
    circuit: &'a EdgeSet,
    /// The run that fills everything outside.
    source: &'a ActivationCache<Double>,
    /// The change of each writer so far from the source run to this run. That of a head is before a
    /// norm after attention.
    changes: Vec<Stream>,
}

impl Literal<'_> {
    fn source(&self, layer: usize, site: Site) -> Stream {
        self.source.block(layer, site).unwrap()
    }

    /// Returns the stream that a reader reads.
    fn stream(&self, reader: Reader) -> Stream {
        let config = self.model.config();
        let graph = self.circuit.graph();
        let mut stream = match reader {
            Reader::Head(head, _) => self.source(head.layer, Site::ResidPre),
            Reader::Mlp(layer) if config.parallel_block => self.source(layer, Site::ResidPre),
            Reader::Mlp(layer) => self.source(layer, Site::ResidMid),
            Reader::Logits => self.source(config.n_layers - 1, Site::ResidPost),
        };
        let is_inside = |writer: &usize| {
            let place = graph.place(&Edge { writer: graph.writer(*writer), reader });
            place.is_ok_and(|place| self.circuit.contains(place))
        };
        let inside: Vec<usize> = (0..self.changes.len()).filter(is_inside).collect();
        let of_head = |writer: usize| match graph.writer(writer) {
            Writer::Head(head) if config.post_norms => Some(head.layer),
            _ => None,
        };
        for &writer in inside.iter().filter(|writer| of_head(**writer).is_none()) {
            stream = stream + self.changes[writer].clone();
        }
        for layer in 0..config.n_layers {
            let heads: Vec<usize> = inside.iter().copied().filter(|writer| of_head(*writer) == Some(layer)).collect();
            if heads.is_empty() {
                continue;
            }
            let before = self.source(layer, Site::AttnBeforeNorm);
            let after = heads.iter().fold(before.clone(), |sum, writer| sum + self.changes[*writer].clone());
            let norm = |x| self.model.after_attention_norm(layer, x);
            stream = stream + norm(after) - norm(before);
        }
        stream
    }

    /// Returns the change of a head's output.
    fn head(&self, head: Head) -> Stream {
        let Self { model, .. } = *self;
        let config = model.config();
        let [q, k, v] = [HeadInput::Q, HeadInput::K, HeadInput::V].map(|input| {
            let group = if input == HeadInput::Q { 1 } else { config.heads_per_key_value_head() };
            let normalized = model.attention_norm(head.layer, self.stream(Reader::Head(head, input)), &mut ());
            let values = model.head_inputs(head.layer, input, &[head.head / group], normalized);
            let [prompts, pos, _, d_head] = values.dims();
            if input == HeadInput::V {
                return values;
            }
            let positions: Vec<usize> = (0..prompts).flat_map(|_| 0..pos).collect();
            let turned = model.after_rotary(head.layer, values.reshape([prompts * pos, 1, 1, d_head]), &positions);
            turned.reshape([prompts, pos, 1, d_head])
        });
        let z = model.attend(head.layer, q, k, v, None);
        let [prompts, pos, _, d_head] = z.dims();
        let source = self.source.block::<4>(head.layer, Site::Z).unwrap().narrow(2, head.head, 1);
        let change = (z - source).reshape([prompts * pos, d_head]);
        let w_o = model.w_o(head.layer).narrow(0, head.head, 1).squeeze_dim::<2>(0);
        change.matmul(w_o).reshape([prompts, pos, config.d_model])
    }

    /// Returns the last residual stream of the circuit.
    fn last(mut self, input: Stream) -> Stream {
        let config = self.model.config().clone();
        self.changes.push(input - self.source(0, Site::ResidPre));
        for layer in 0..config.n_layers {
            let heads: Vec<Stream> = (0..config.n_heads).map(|head| self.head(Head::new(layer, head))).collect();
            // A reader of a parallel block has no edge from the layer's heads.
            self.changes.extend(heads);
            let normalized = self.model.mlp_norm(layer, self.stream(Reader::Mlp(layer)), &mut ());
            let mlp = self.model.mlp(layer, normalized, &mut ());
            self.changes.push(mlp - self.source(layer, Site::MlpOut));
        }
        self.stream(Reader::Logits)
    }
}

fn tokens(model: &Transformer<Double>, tokens: &[Vec<u32>]) -> Tensor<Double, 2, Int> {
    model.tokens(tokens).unwrap()
}

/// Returns the metric of each prompt in the literal run of a circuit. `outside` gives the source
/// run as a patch of the clean run, or `None` for the corrupted run.
fn literal(
    model: &Transformer<Double>,
    pairs: &PromptPairs,
    circuit: &EdgeSet,
    outside: Option<&Patch<Double>>,
) -> Vec<f64> {
    let mut recorder = Recorder::all();
    match outside {
        None => model.forward(Run::tokens(tokens(model, &pairs.corrupted())), &mut recorder).unwrap(),
        Some(patch) => {
            model.forward(Run::tokens(tokens(model, &pairs.clean())), (patch.clone(), &mut recorder)).unwrap()
        }
    };
    let source = recorder.into_cache();
    let mut recorder = Recorder::filtered(|point| point == Site::ResidPre.at(0));
    model.forward(Run::tokens(tokens(model, &pairs.clean())), &mut recorder).unwrap();
    let input = recorder.into_cache().block::<3>(0, Site::ResidPre).unwrap();
    let last = Literal { model, circuit, source: &source, changes: Vec::new() }.last(input);
    let metric = LogitDiff::new(pairs);
    let readout = Readout { positions: ReadPositions::Each(pairs.ends()), columns: metric.reads().columns };
    let n_layers = model.config().n_layers;
    let logits = model.forward(Run::from_residual(n_layers, last).with_readout(readout), ()).unwrap();
    let [rows, _, columns] = logits.dims();
    let prompts: Vec<usize> = (0..rows).collect();
    metric.evaluate(logits.reshape([rows, columns]), &prompts).into_data().iter::<f64>().collect()
}

/// Draws each edge with this probability, in percent.
fn random_set(graph: EdgeGraph, seed: u64, share: u64) -> EdgeSet {
    let mut set = EdgeSet::empty(graph);
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    for place in graph.places() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        set.set(place, (state >> 33) % 100 < share);
    }
    set
}

fn assert_same(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        // Metrics are stored in float32.
        assert!((found - expected).abs() <= 1e-6 + 1e-6 * expected.abs(), "{what}: {found} is not {expected}");
    }
}

fn model(config: &TransformerConfig, seed: u64) -> Transformer<Double> {
    // With residual streams of 8 numbers the norm is nearly a step.
    let config = TransformerConfig { norm_eps: 0.1, ..config.clone() };
    Transformer::random(&config, seed, &Default::default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_circuit_has_the_metric_of_a_run_that_computes_every_node_alone(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, budget in 1_usize..200, batch in 1_usize..5,
    ) {
        let model = model(&config, seed);
        let metric = LogitDiff::new(&pairs);
        let graph = EdgeGraph::new(&config);
        let circuits: Vec<EdgeSet> = [10, 30, 60, 95].map(|share| random_set(graph, seed + share, share)).to_vec();
        let sites = [Site::ResidPre, Site::Z, Site::MlpOut];
        let means = mean_activations(&model, &pairs.clean(), &sites, MeanOver::Prompts, 4).unwrap();
        let clean = tokens(&model, &pairs.clean()).dims();
        let patch = |fixed: Option<&ActivationCache<Double>>| {
            let mut recorder = Recorder::all();
            model.forward(Run::tokens(tokens(&model, &pairs.clean())), &mut recorder).unwrap();
            let cache = recorder.into_cache();
            let outputs = (0..config.n_layers).flat_map(|layer| [Site::Z.at(layer), Site::MlpOut.at(layer)]);
            outputs.chain([Site::ResidPre.at(0)]).fold(Patch::new(), |patch, point| {
                let value = cache.any(point).unwrap().clone();
                match fixed {
                    Some(means) => {
                        let dims = value.dims();
                        patch.replace(point, means.any(point).unwrap().narrow(1, 0, clean[1]).expand(&dims))
                    }
                    None if point == Site::ResidPre.at(0) => {
                        let embedded = cache.get::<3>(HookPoint::Embed).unwrap();
                        patch.replace(HookPoint::Embed, embedded.zeros_like())
                    }
                    None => patch.replace(point, rewire_hooks::AnyRank::zeros(&value.dims(), &Default::default())),
                }
            })
        };
        let outsides = [
            (Intervention::Resample, None),
            (Intervention::Zero, Some(patch(None))),
            (Intervention::Fixed(means.clone()), Some(patch(Some(&means)))),
        ];
        let execution = Execution { token_budget: budget, prompt_batch: batch, ..Execution::default() };
        for (outside, patch) in &outsides {
            let found = evaluate_circuits(&model, asked(&pairs, &metric), &circuits, outside, &execution).unwrap();
            for (number, circuit) in circuits.iter().enumerate() {
                let of_circuit: Vec<f64> = found.values.column(number).iter().map(|v| f64::from(*v)).collect();
                let expected = literal(&model, &pairs, circuit, patch.as_ref());
                assert_same(&of_circuit, &expected, &format!("circuit {number}, {}, of {config:?}", outside.name()));
            }
            let empty: Vec<f64> = found.empty.iter().map(|v| f64::from(*v)).collect();
            assert_same(&empty, &literal(&model, &pairs, &EdgeSet::empty(graph), patch.as_ref()), "no edges");
            // Nothing reused: no prefix, nothing pruned, and runs where the metric is known.
            let ends = [EdgeSet::all(graph), EdgeSet::empty(graph)];
            let sets = [circuits.clone(), ends.to_vec()].concat();
            let reference = Execution { prompt_batch: batch, ..Execution::reference() };
            let reference = evaluate_circuits(&model, asked(&pairs, &metric), &sets, outside, &reference).unwrap();
            let fast = evaluate_circuits(&model, asked(&pairs, &metric), &sets, outside, &execution).unwrap();
            for (fast, reference) in fast.values.iter().zip(&reference.values) {
                assert_same(&[f64::from(*fast)], &[f64::from(*reference)], "reference");
            }
        }
    }

    #[test]
    fn the_circuit_of_all_edges_but_one_has_the_exact_effect_of_that_edge(
        config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, shares in prop::collection::vec(0.0..1.0, 12),
    ) {
        let model = model(&config, seed);
        let metric = LogitDiff::new(&pairs);
        let graph = EdgeGraph::new(&config);
        let all: Vec<Edge> = graph.edges().collect();
        let edges: Vec<Edge> = shares.iter().map(|share| all[(share * all.len() as f64) as usize]).collect();
        let without = |edge: &Edge| {
            let mut set = EdgeSet::all(graph);
            set.set(graph.place(edge).unwrap(), false);
            set
        };
        let circuits: Vec<EdgeSet> = edges.iter().map(without).collect();
        let execution = Execution::default();
        let question = asked(&pairs, &metric).in_metric_units();
        let found = evaluate_circuits(&model, question, &circuits, &Intervention::Resample, &execution).unwrap();
        let effects = patch_edges(&model, question, &edges, Direction::Noising, &execution).unwrap();
        for (prompt, values) in found.values.axis_iter(Axis(0)).enumerate() {
            let clean = found.baselines.clean[prompt];
            let changes: Vec<f64> = values.iter().map(|value| f64::from(value - clean)).collect();
            let effects: Vec<f64> = effects.values.row(prompt).iter().map(|effect| f64::from(*effect)).collect();
            for ((change, effect), edge) in changes.iter().zip(&effects).zip(&edges) {
                prop_assert!((change - effect).abs() <= 3e-6 + 1e-6 * effect.abs(), "{edge}: {change} {effect}");
            }
        }
    }
}
