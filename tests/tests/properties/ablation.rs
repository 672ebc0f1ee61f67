//! Ablation, interpolation curves and accuracy, compared with TransformerLens and with literal
//! whole forwards.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use ndarray::Axis as Dimension;
use proptest::prelude::*;
use rewire_analysis::integrated::interpolation_curves;
use rewire_analysis::node::{Component, Node, NodeKind};
use rewire_analysis::patching::{ablate_groups, ablation, activation_patching};
use rewire_analysis::run::{Direction, Execution, Intervention, MeanOver, mean_activations};
use rewire_hooks::{ActivationCache, HookPoint, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::{LogitDiff, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::{assert_within, rounding, scale};
use rewire_tests::random::{any_family, any_pairs};

pub(crate) const HEADS: NodeKind = NodeKind { component: Component::HeadZ, by: rewire_analysis::node::By::All };

pub(crate) fn clean_prompts(pairs: &PromptPairs) -> Vec<Vec<u32>> {
    pairs.pairs().iter().map(|p| p.clean.clone()).collect()
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
    fn interpolation_curves_go_from_the_clean_to_the_ablated_metric(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, which in 0_usize..3, budget in 1_usize..100) {
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

in_this_precision!(properties, 24, 12);
