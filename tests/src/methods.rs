//! Runs every method over every kind of node, for tests that compare devices and precisions.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use ndarray::ArrayD;
use rewire_analysis::Effects;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attention_attribution, attribution_patching, edge_attribution,
};
use rewire_analysis::heads::{KeptTokens, backup_heads, copy_suppression, logit_attribution};
use rewire_analysis::integrated::{IntegratedGradientsOptions, integrated_gradients, interpolation_curves};
use rewire_analysis::node::{By, Component, Node, NodeKind};
use rewire_analysis::patching::{ablation, activation_patching, patch_groups};
use rewire_analysis::path::{FreezePolicy, Input, Receiver, path_patching};
use rewire_analysis::run::{Direction, Execution, Intervention, MeanOver, Question, Scale, mean_activations};
use rewire_hooks::{Head, Site};
use rewire_model::{FinalNormGain, Transformer};
use rewire_tasks::{LogitDiff, PromptPairs};

/// Returns the results of every method, by name. Methods that keep prompts apart give means over
/// prompts. `integral` sets the quadrature of integrated gradients.
pub fn every_effect<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    scale: Scale,
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
    execution: &Execution,
) -> Vec<(String, ArrayD<f32>)> {
    let plain = model.valid();
    let metric = LogitDiff::new(pairs);
    let question = Question::new(pairs, &metric).on_scale(scale);
    let blocks = [Component::ResidPre, Component::ResidPost, Component::AttnOut, Component::MlpOut, Component::MlpPost];
    let heads = [Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadZ, Component::HeadPattern];
    let mut kinds: Vec<NodeKind> = blocks.into_iter().chain(heads).map(NodeKind::by_position).collect();
    kinds.extend(heads.map(NodeKind::all));
    kinds.push(NodeKind { component: Component::HeadPattern, by: By::Cell });
    let writing = [Component::HeadZ, Component::MlpOut].map(NodeKind::all);
    let mut found = Vec::new();
    let mut add = |method: &str, effects: Vec<Effects>| {
        found.extend(effects.into_iter().map(|e| (format!("{method} {}", e.kind), e.mean())));
    };

    add(
        "activation patching",
        activation_patching(&plain, question, &kinds, Direction::Denoising, execution).unwrap().effects,
    );
    add(
        "attribution patching",
        attribution_patching(model, question, &kinds, Direction::Denoising, execution).unwrap().effects,
    );
    let integrated = integrated_gradients(model, question, &writing, integral, execution).unwrap();
    add("integrated gradients", integrated.outcome.effects);
    let clean: Vec<Vec<u32>> = pairs.clean();
    let means = mean_activations(&plain, &clean, &[Site::Z, Site::MlpOut], MeanOver::Prompts, 3).unwrap();
    for (name, by) in [("zero", Intervention::Zero), ("mean", Intervention::Fixed(means))] {
        let after = ablation(&plain, question, &writing, &by, execution).unwrap().after();
        add(&format!("ablation to {name}"), after);
    }
    add(
        "logit attribution",
        logit_attribution(&plain, pairs, &writing, FinalNormGain::Applied, execution).unwrap().effects,
    );
    let last = model.config().n_layers - 1;
    let receivers = [
        Receiver::new(last, Input::Q).head(1),
        Receiver::new(last, Input::V),
        Receiver::new(last, Input::MlpIn),
        Receiver::new(last, Input::ResidPost),
    ];
    for policy in [FreezePolicy::path_patching(), FreezePolicy::direct()] {
        for receiver in &receivers {
            let to = [receiver.clone()];
            let paths =
                path_patching(&plain, question, &writing, &to, policy, Direction::Denoising, execution).unwrap();
            add(&format!("path patching, {policy} held, to {receiver},"), paths.outcome.effects);
        }
    }

    let head = |layer, head| Node::new(layer, Component::HeadZ).unit(head);
    let of_paths = EdgeAttributionOptions { norm: NormJacobian::Exact, reduce: Reduce::Mean };
    let paths = edge_attribution(model, question, of_paths, Direction::Denoising, execution).unwrap();
    found.push(("head edges".into(), paths.values.into_dyn()));
    let attention = attention_attribution(model, question, execution).unwrap();
    found.push(("attention attribution".into(), attention.into_dyn()));
    let groups = [vec![head(0, 0), head(1, 1)], vec![head(last, 1)]];
    let groups = patch_groups(&plain, question, &groups, Direction::Denoising, execution).unwrap();
    found.push(("groups".into(), groups.values.into_dyn()));
    let along = [0.25, 0.5, 1.0];
    let curves =
        interpolation_curves(&plain, pairs, &metric, &[head(1, 0)], &along, &Intervention::Resample, execution)
            .unwrap();
    found.push(("interpolation".into(), curves.values.into_dyn()));
    found.push((
        "backup heads".into(),
        backup_heads(&plain, pairs, &[Head::new(1, 0)], FinalNormGain::Applied, execution).unwrap().after.into_dyn(),
    ));
    let suppression = copy_suppression(&plain, pairs, &[Head::new(1, 0)], &KeptTokens::default(), execution).unwrap();
    let divergences = suppression.iter().flat_map(|s| [s.preserved as f32, s.ablated as f32]).collect::<Vec<_>>();
    found.push(("copy suppression".into(), ndarray::Array1::from(divergences).into_dyn()));
    found
}
