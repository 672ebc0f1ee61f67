//! Compares ablation and interpolation curves with TransformerLens.

use burn::tensor::backend::Backend;
use ndarray::{ArrayD, Axis as Dimension};
use rewire_analysis::integrated::{Quadrature, interpolation_curves};
use rewire_analysis::node::{Component, Node};
use rewire_analysis::patching::{ablate_groups, ablation};
use rewire_analysis::run::{Execution, Intervention, MeanOver, mean_activations};
use rewire_hooks::Site;
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::{Tolerance, assert_close};
use rewire_tests::fixture::{Fixture, processings};
use rewire_tests::on_every_backend;

use crate::properties::ablation::{HEADS, clean_prompts};

on_every_backend!(ablations_match_transformer_lens, interpolation_curves_match_transformer_lens);

/// For logit differences near 5. The largest difference measured on both CPU backends is 2.9e-6,
/// for a logit difference near 10.
const LOGITS: Tolerance = Tolerance::new(1e-6, 2e-6);

pub(crate) fn means<B: Backend>(model: &Transformer<B>, pairs: &PromptPairs, over: MeanOver) -> Intervention<B> {
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
