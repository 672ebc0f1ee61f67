//! Ablation, interpolation curves and accuracy, compared with TransformerLens and with literal
//! whole forwards.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use burn_ndarray::NdArray;
use ndarray::{ArrayD, Axis as Dimension};
use proptest::prelude::*;
use rewire_analysis::AnalysisError;
use rewire_analysis::integrated::{Quadrature, interpolation_curves};
use rewire_analysis::node::{Component, Node, NodeKind, Positions};
use rewire_analysis::patching::{
    Ablated, AnswerAccuracy, ablate_groups, ablation, activation_patching, answer_accuracy,
};
use rewire_analysis::run::{Direction, Execution, Intervention, MeanOver, mean_activations};
use rewire_analysis::stats::Proportion;
use rewire_hooks::{ActivationCache, Hook, HookPoint, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::ioi::{Corruption, IoiGenerator, Split};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::{Tolerance, array, assert_close, assert_within, rounding, scale};
use rewire_tests::fixture::{Fixture, processings};
use rewire_tests::on_every_backend;
use rewire_tests::random::{any_config, any_family, any_pairs};
use rewire_toy::Toy;

on_every_backend!(ablations_match_transformer_lens, interpolation_curves_match_transformer_lens);

/// For logit differences near 5. The largest difference measured on both CPU backends is 2.9e-6,
/// for a logit difference near 10.
const LOGITS: Tolerance = Tolerance::new(1e-6, 2e-6);

const HEADS: NodeKind = NodeKind { component: Component::HeadZ, by: rewire_analysis::node::By::All };

fn clean_prompts(pairs: &PromptPairs) -> Vec<Vec<u32>> {
    pairs.pairs().iter().map(|p| p.clean.clone()).collect()
}

fn means<B: Backend>(model: &Transformer<B>, pairs: &PromptPairs, over: MeanOver) -> Intervention<B> {
    Intervention::Fixed(mean_activations(model, &clean_prompts(pairs), &[Site::Z], over, 3).unwrap())
}

fn ablations_match_transformer_lens<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<B> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let metric = LogitDiff::new(&pairs);
            let by = [
                ("zero", Intervention::Zero),
                ("mean", means(&model, &pairs, MeanOver::PromptsAndPositions)),
                ("mean_by_position", means(&model, &pairs, MeanOver::Prompts)),
            ];
            for (name, intervention) in &by {
                let table = format!("{weights}/ablate/{name}");
                let found =
                    ablation(&model, asked(&pairs, &metric), &[HEADS], intervention, &Execution::default()).unwrap();
                match fixture.table(&table) {
                    Some(expected) => {
                        let what = format!("{} {table}", fixture.name);
                        assert_close(&found.after()[0].mean(), expected, LOGITS.on::<B>(), &what);
                    }
                    None => {
                        let elsewhere = *name == "mean_by_position" && !fixture.is_own();
                        assert!(elsewhere, "{}: {table} is missing", fixture.name);
                    }
                }
            }
            let set = fixture.table(&format!("{weights}/ablate/zero_1.2_2.0"));
            assert!(set.is_some() || !fixture.is_own(), "{}: no set", fixture.name);
            if let Some(expected) = set {
                let head = |layer, head| Node::new(layer, Component::HeadZ).unit(head);
                let set = [vec![head(1, 2), head(2, 0)]];
                let found =
                    ablate_groups(&model, asked(&pairs, &metric), &set, &Intervention::Zero, &Execution::default())
                        .unwrap();
                let after = found.mean()[0] + found.baselines.means()[0] as f32;
                let after = ArrayD::from_elem(expected.shape(), after);
                assert_close(&after, expected, LOGITS.on::<B>(), &format!("{} a set", fixture.name));
            }
        }
    }
}

fn interpolation_curves_match_transformer_lens<B: Backend>() {
    for fixture in Fixture::all() {
        let model: Transformer<B> = fixture.model(processings()[0].1);
        let pairs = fixture.pairs(&model);
        let (name, expected) =
            fixture.results.iter().find(|(name, _)| name.starts_with("proc/seed001/interp_")).expect("a curve");
        let head = name.rsplit('_').next().unwrap().split_once('.').unwrap();
        let node = Node::new(head.0.parse().unwrap(), Component::HeadResult).unit(head.1.parse().unwrap());
        let places: Vec<f64> = Quadrature::default().nodes().unwrap().iter().map(|node| node.at).collect();
        let resample = Intervention::Resample;
        let found = interpolation_curves(
            &model,
            &pairs,
            &LogitDiff::new(&pairs),
            &[node],
            &places,
            &resample,
            &Execution::default(),
        );
        let of_row_0 = found.unwrap().values.index_axis(Dimension(0), 0).index_axis(Dimension(0), 0).to_owned();
        assert_close(&of_row_0.into_dyn(), expected, LOGITS.on::<B>(), &format!("{} {name}", fixture.name));
    }
}

fn model<B: AutodiffBackend>(config: &rewire_model::TransformerConfig, seed: u64) -> Transformer<B::InnerBackend> {
    Transformer::<B>::random(config, seed, &Default::default()).valid()
}

/// Returns given activations that differ from both runs: a different number for every unit in every
/// layer.
fn given<B: Backend>(model: &Transformer<B>) -> Intervention<B> {
    let config = model.config();
    let values = |n: usize| (0..n).map(|i| (0.7 * i as f32).sin()).collect::<Vec<f32>>();
    let cache = (0..config.n_layers).fold(ActivationCache::new(), |cache, layer| {
        let given = |n: usize| Tensor::<B, 1>::from_floats(values(n).as_slice(), &Default::default());
        let (heads, shared, d_head) = (config.n_heads, config.n_key_value_heads(), config.d_head);
        let post = Tensor::<B, 1>::from_floats(values(config.d_mlp).as_slice(), &Default::default());
        cache
            .with(HookPoint::block(layer, Site::Z), given(heads * d_head).reshape([1, 1, heads, d_head]))
            .with(HookPoint::block(layer, Site::V), given(shared * d_head).reshape([1, 1, shared, d_head]))
            .with(HookPoint::block(layer, Site::AttnOut), given(config.d_model).reshape([1, 1, config.d_model]))
            .with(HookPoint::block(layer, Site::MlpPost), post.reshape([1, 1, config.d_mlp]))
    });
    Intervention::Fixed(cache)
}

/// Replaces z of some heads at all positions; the last given position also serves all later ones.
struct WithoutHeads {
    heads: Vec<[usize; 2]>,
    /// One array per layer, `[1, pos, head, d_head]`.
    values: Vec<ArrayD<f32>>,
}

impl Hook<Flex> for WithoutHeads {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<Flex, D>) -> Tensor<Flex, D> {
        let HookPoint::Block { layer, site: Site::Z } = point else { return activation };
        let dims = activation.dims();
        let mut z = array(activation);
        for &[_, head] in self.heads.iter().filter(|[of, _]| *of == layer) {
            for pos in 0..dims[1] {
                let given = self.values[layer].shape()[1];
                let value = self.values[layer].slice(ndarray::s![0, pos.min(given - 1), head, ..]).to_owned();
                z.slice_mut(ndarray::s![0, pos, head, ..]).assign(&value);
            }
        }
        Tensor::from_data(TensorData::new(z.into_iter().collect(), dims), &Default::default())
    }
}

/// The properties on a backend.
macro_rules! properties {
    ($name:ident, $backend:ty, $cases:literal) => {
        mod $name {
            use super::*;

            type Plain = $backend;
            type Grad = Autodiff<Plain>;

proptest! {
    #![proptest_config(ProptestConfig { cases: $cases, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ablation_equals_whole_forwards(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, which in 0_usize..4, by_position in any::<bool>(), budget in 1_usize..200) {
        let model = model::<Grad>(&config, seed);
        let intervention = match which {
            0 => Intervention::Zero,
            1 => given(&model),
            2 => Intervention::Resample,
            _ => Intervention::Fixed(mean_activations(&model, &clean_prompts(&pairs), &[Site::Z, Site::V, Site::AttnOut, Site::MlpPost], MeanOver::Prompts, 2).unwrap()),
        };
        let mut components = vec![Component::HeadZ, Component::HeadV, Component::AttnOut, Component::MlpPost];
        if which == 0 {
            components.extend([Component::HeadQ, Component::HeadK, Component::HeadPattern, Component::ResidPre]);
        }
        let kinds: Vec<_> = components.into_iter().map(if by_position { NodeKind::by_position } else { NodeKind::all }).collect();
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { token_budget: budget, prompt_batch: 1 + budget % 3, ..Execution::default() };
        let fast = ablation(&model, asked(&pairs, &metric), &kinds, &intervention, &execution).unwrap();
        let slow = Execution::reference();
        let slow = ablation(&model, asked(&pairs, &metric), &kinds, &intervention, &slow).unwrap();
        let size = fast.baselines.clean.iter().chain(&fast.baselines.corrupted).fold(1.0_f32, |m, v| m.max(v.abs()));
        for (fast, slow) in fast.effects.iter().zip(&slow.effects) {
            let size = size.max(scale(&slow.values));
            assert_within(&fast.values, &slow.values, rounding::<Plain>() * size, &format!("{} {}", fast.kind, intervention.name()));
        }
        // Resampling from the corrupted run is noising.
        if which == 2 {
                        prop_assert_eq!(fast.effects, activation_patching(&model, asked(&pairs, &metric), &kinds, Direction::Noising, &execution).unwrap().effects);
        }
    }

    #[test]
    fn ablation_of_sets_equals_whole_forwards(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, which in 0_usize..3) {
        let model = model::<Grad>(&config, seed);
        let intervention = [Intervention::Zero, given(&model), Intervention::Resample][which].clone();
        let last = config.n_layers - 1;
        let head = |layer| Node::new(layer, Component::HeadZ).unit(0);
        let groups = [vec![head(0)], vec![Node::new(0, Component::MlpPost).unit(1), head(last)], vec![Node::new(last, Component::HeadZ)]];
        let metric = LogitDiff::new(&pairs);
        let fast = ablate_groups(&model, asked(&pairs, &metric), &groups, &intervention, &Execution::default()).unwrap();
        let slow = Execution::reference();
        let slow = ablate_groups(&model, asked(&pairs, &metric), &groups, &intervention, &slow).unwrap();
        let size = scale(&slow.values.clone().into_dyn()).max(1.0);
        assert_within(&fast.values.into_dyn(), &slow.values.clone().into_dyn(), rounding::<Plain>() * size, "sets");
        // A set of one head equals that head in a sweep.
        let alone = ablation(&model, asked(&pairs, &metric), &[HEADS], &intervention, &Execution::default()).unwrap();
        let alone = alone.effects[0].values.index_axis(Dimension(1), 0).index_axis(Dimension(1), 0).to_owned();
        assert_within(&alone, &slow.values.column(0).to_owned().into_dyn(), rounding::<Plain>() * size, "one head");
    }

    #[test]
    fn interpolation_curves_go_from_the_clean_to_the_ablated_metric(config in any_config(), pairs in any_pairs(), seed in 0_u64..1000, which in 0_usize..3, budget in 1_usize..100) {
        let model = model::<Grad>(&config, seed);
        let intervention = [Intervention::Zero, given(&model), Intervention::Resample][which].clone();
        let last = config.n_layers - 1;
        let nodes = [Node::new(0, Component::HeadZ).unit(0), Node::new(last, Component::HeadZ), Node::new(0, Component::MlpPost).unit(3), Node::new(last, Component::AttnOut)];
        let metric = LogitDiff::new(&pairs);
        let execution = Execution { token_budget: budget, ..Execution::default() };
        // For neurons, zero is the activation of their bias in curves and 0 in ablation, so they
        // are tested with the other ends only.
        let nodes = if which == 0 { vec![nodes[0].clone(), nodes[3].clone()] } else { nodes.to_vec() };
        let curves = interpolation_curves(&model, &pairs, &metric, &nodes, &[-1.0, 0.0, 0.5, 1.0], &intervention, &execution).unwrap();
        let groups: Vec<_> = nodes.iter().map(|node| vec![node.clone()]).collect();
        let ablated = ablate_groups(&model, asked(&pairs, &metric), &groups, &intervention, &Execution::default()).unwrap();
        // A fraction beyond the clean end extrapolates: twice the clean activation minus the other
        // one.
        let mut recorder = Recorder::filtered(|p| p == HookPoint::block(0, Site::Z));
        model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
        let clean_z = recorder.into_cache().block::<4>(0, Site::Z).unwrap();
        let end_z = match &intervention {
            Intervention::Fixed(cache) => Some(cache.block::<4>(0, Site::Z).unwrap()),
            Intervention::Zero => Some(clean_z.zeros_like()),
            Intervention::Resample => None,
        };
        if let Some(end_z) = end_z {
            let beyond = clean_z * 2.0 - end_z;
            let beyond = Intervention::Fixed(ActivationCache::new().with(HookPoint::block(0, Site::Z), beyond));
            let expected = ablate_groups(&model, asked(&pairs, &metric), &groups[..1], &beyond, &Execution::default()).unwrap();
            for (prompt, clean) in expected.baselines.clean.iter().enumerate() {
                let (found, expected) = (curves.values[[prompt, 0, 0]], clean + expected.values[[prompt, 0]]);
                prop_assert!((found - expected).abs() < rounding::<Plain>() * expected.abs().max(1.0), "beyond: {found} is not {expected}");
            }
        }
        for (prompt, clean) in ablated.baselines.clean.iter().enumerate() {
            for (node, named) in nodes.iter().enumerate() {
                let [start, end] = [1, 3].map(|place| curves.values[[prompt, node, place]]);
                let size = clean.abs().max(end.abs()).max(1.0);
                prop_assert!((start - clean).abs() < rounding::<Plain>() * size, "{start} is not {clean}");
                let after = clean + ablated.values[[prompt, node]];
                prop_assert!((end - after).abs() < rounding::<Plain>() * size, "{named}: {end} is not {after}");
            }
        }
    }
}
        }
    };
}

properties!(float32, Flex, 24);
// In float64, computations that differ by rounding agree, because only the metrics are rounded to
// float32.
properties!(float64, NdArray<f64>, 12);

/// Returns a toy model and generated IOI prompts of several lengths.
fn ioi(toy: Toy, n: usize) -> (Transformer<Flex>, rewire_tasks::Tokenizer, PromptPairs) {
    let model: Transformer<Flex> = toy.load(&Default::default()).unwrap();
    let tokenizer = toy.tokenizer().unwrap();
    let prompts = IoiGenerator::new(&tokenizer).unwrap().sample(n, 3, Split::All);
    let pairs = Corruption::Abc.pairs(&prompts, &tokenizer, model.config().bos_token).unwrap();
    (model, tokenizer, pairs)
}

/// Computes accuracy literally: each prompt alone, each token with a forward from the start of the
/// prompt, without a cache.
fn slow_accuracy(
    model: &Transformer<Flex>,
    pairs: &PromptPairs,
    tokenizer: &rewire_tasks::Tokenizer,
    heads: &[[usize; 2]],
    values: impl Fn(&PromptPair) -> Vec<ArrayD<f32>>,
) -> [Proportion; 3] {
    let mut counts = [Vec::new(), Vec::new(), Vec::new()];
    for pair in pairs.pairs() {
        let mut tokens = pair.clean.clone();
        for step in 0..3 {
            let run = Run::tokens(model.tokens(&[tokens.clone()]).unwrap());
            let without = WithoutHeads { heads: heads.to_vec(), values: values(pair) };
            let logits = array(model.forward(run, without).unwrap());
            let last = logits.index_axis(Dimension(0), 0).index_axis(Dimension(0), tokens.len() - 1).to_owned();
            let largest = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if step == 0 {
                let [answer, wrong] = [pair.answers[0], pair.wrong_answers[0]].map(|t| last[[t as usize]]);
                counts[0].push(answer == largest);
                counts[1].push(answer > wrong);
            }
            tokens.push(last.iter().position(|&l| l == largest).unwrap() as u32);
        }
        let text = tokenizer.decode(&tokens[pair.clean.len()..]);
        let name = tokenizer.decode(&pair.answers);
        counts[2].push(text.split_whitespace().next().is_some_and(|word| word.contains(name.trim())));
    }
    counts.map(Proportion::of)
}

#[test]
fn accuracy_equals_prompt_by_prompt_generation_without_a_cache() {
    for toy in Toy::ALL {
        let (model, tokenizer, pairs) = ioi(toy, 24);
        let config = model.config().clone();
        let last = config.n_layers - 1;
        let layers = 0..config.n_layers;
        let z_of = |tokens: &[u32]| {
            let mut recorder = Recorder::filtered(|p| p.site() == Some(Site::Z));
            model.forward(Run::tokens(model.tokens(&[tokens.to_vec()]).unwrap()), &mut recorder).unwrap();
            let cache = recorder.into_cache();
            layers.clone().map(|layer| array(cache.block::<4>(layer, Site::Z).unwrap())).collect::<Vec<_>>()
        };
        let given = |by: &Intervention<Flex>| match by {
            Intervention::Fixed(cache) => {
                layers.clone().map(|l| array(cache.block::<4>(l, Site::Z).unwrap())).collect()
            }
            _ => vec![ArrayD::zeros(vec![1, 1, config.n_heads, config.d_head]); config.n_layers],
        };
        let sets = [vec![[last, 7]], vec![[0, 0], [0, 5], [last, 2]], (0..24).map(|i| [1 + i / 8, i % 8]).collect()];
        // Each position has its own mean, so generated tokens after END use activations unlike
        // those before.
        let by = [Intervention::Zero, means(&model, &pairs, MeanOver::Prompts), Intervention::Resample];
        let cases: Vec<_> = sets.iter().flat_map(|set| by.iter().map(move |by| (set, by))).collect();
        let ablations: Vec<_> = cases
            .iter()
            .map(|(set, by)| Ablated {
                nodes: set.iter().map(|&[layer, head]| Node::new(layer, Component::HeadZ).unit(head)).collect(),
                by: (*by).clone(),
            })
            .collect();
        let execution = Execution { prompt_batch: 7, ..Execution::default() };
        let found = answer_accuracy(&model, &pairs, &tokenizer, &ablations, 3, &execution).unwrap();
        for (found, (set, by)) in found.iter().zip(cases) {
            let values = |pair: &PromptPair| match by {
                Intervention::Resample => z_of(&pair.corrupted),
                // Given activations are as long as the prompt. Positions after END use the
                // activation at END.
                other => given(other)
                    .into_iter()
                    .map(|v| v.slice_axis(Dimension(1), (0..v.shape()[1].min(pair.clean.len())).into()).to_owned())
                    .collect(),
            };
            let expected = slow_accuracy(&model, &pairs, &tokenizer, set, values);
            let what = format!("{toy:?} without {set:?} by {}", by.name());
            assert_eq!([found.first, found.above_wrong, found.said], expected, "{what}");
        }
        // If the first token is not an answer, further tokens were generated.
        assert!(found.iter().any(|f| f.first.successes < f.first.n), "{toy:?} is always right");
    }
}

#[test]
fn ablating_the_toys_heads_destroys_their_accuracy() {
    let (model, tokenizer, pairs) = ioi(Toy::Gpt2, 60);
    let all: Vec<Node> = (0..4).map(|layer| Node::new(layer, Component::HeadZ)).collect();
    let by = [
        Intervention::Zero,
        means(&model, &pairs, MeanOver::PromptsAndPositions),
        means(&model, &pairs, MeanOver::Prompts),
        Intervention::Resample,
    ];
    let mut ablations = vec![Ablated { nodes: vec![], by: Intervention::Zero }];
    ablations.extend(by.into_iter().map(|by| Ablated { nodes: all.clone(), by }));
    let found = answer_accuracy(&model, &pairs, &tokenizer, &ablations, 3, &Execution::default()).unwrap();
    let whole = &found[0];
    assert!(whole.first.share() > 0.9 && whole.said.share() > 0.9 && whole.logit_difference > 2.0, "{whole:?}");
    assert!(!whole.is_never_right() && whole.first.n == 60);
    for ablated in &found[1..] {
        assert!(ablated.first.share() < 0.5 && ablated.mean_rank > whole.mean_rank, "{ablated:?}");
    }
    let never: AnswerAccuracy = {
        let dog = tokenizer.single_token(" dog").unwrap();
        let swapped = pairs.pairs().iter().map(|p| PromptPair {
            answers: vec![dog],
            wrong_answers: p.answers.clone(),
            ..p.clone()
        });
        let swapped = PromptPairs::new(swapped.collect()).unwrap();
        answer_accuracy(&model, &swapped, &tokenizer, &ablations[..1], 3, &Execution::default()).unwrap().remove(0)
    };
    assert!(never.is_never_right(), "{never:?}");
}

#[test]
fn unsupported_ablations_are_refused() {
    let (model, tokenizer, pairs) = ioi(Toy::NeoX, 4);
    let head = Node::new(1, Component::HeadZ).unit(2);
    let refused = |nodes: Vec<Node>, by: Intervention<Flex>, new_tokens| {
        let ablated = Ablated { nodes, by };
        answer_accuracy(&model, &pairs, &tokenizer, &[ablated], new_tokens, &Execution::default())
            .unwrap_err()
            .to_string()
    };
    let twice = refused(vec![head.clone(), head.clone()], Intervention::Zero, 3);
    assert_eq!(twice, "head_z:L1H2 is named twice in one set");
    let metric = LogitDiff::new(&pairs);
    let groups = [vec![head.clone(), head.clone()]];
    let twice =
        ablate_groups(&model, asked(&pairs, &metric), &groups, &Intervention::Zero, &Execution::default()).unwrap_err();
    assert!(matches!(twice, AnalysisError::NodeTwice { .. }), "{twice}");
    let result = Node::new(1, Component::HeadResult).unit(2);
    assert!(refused(vec![head.clone(), result], Intervention::Zero, 3).contains("named twice"));
    let all = Node::new(1, Component::HeadZ);
    assert!(refused(vec![head.clone(), all], Intervention::Zero, 3).contains("named twice"));
    let by_prompt = Tensor::<Flex, 4>::zeros([4, 1, 8, 16], &Default::default());
    let by_prompt = ActivationCache::new().with(HookPoint::block(1, Site::Z), by_prompt);
    assert!(refused(vec![head.clone()], Intervention::Fixed(by_prompt), 3).contains("[4, 1, 8, 16]"));
    let other = Node::new(1, Component::HeadZ).unit(8);
    assert!(refused(vec![other], Intervention::Zero, 3).contains("head 8 is out of range"));
    let at = head.clone().at(Positions::One(1));
    assert!(refused(vec![at], Intervention::Zero, 3).contains("ablate it at all positions"));
    assert!(refused(vec![Node::new(0, Component::HeadPattern)], Intervention::Zero, 3).contains("patterns grow"));
    assert!(refused(vec![head.clone()], Intervention::Zero, 1000).contains("context"));
    let empty = Intervention::Fixed(ActivationCache::new());
    assert!(refused(vec![head], empty, 3).contains("blocks.1.attn.hook_z"));
    let keys = [NodeKind::all(Component::HeadK)];
    let fixed = Intervention::Fixed(
        mean_activations(&model, &clean_prompts(&pairs), &[Site::K], MeanOver::Prompts, 4).unwrap(),
    );
    let rotated = ablation(&model, asked(&pairs, &metric), &keys, &fixed, &Execution::default()).unwrap_err();
    assert!(rotated.to_string().contains("rotates"), "{rotated}");
    let query = [Node::new(0, Component::HeadQ).unit(0)];
    let curve =
        interpolation_curves(&model, &pairs, &metric, &query, &[0.5], &Intervention::Zero, &Execution::default());
    assert!(curve.unwrap_err().to_string().contains("residual stream"));
}
