//! Compares path patching with TransformerLens.

use burn::backend::Flex;
use burn::tensor::backend::Backend;
use ndarray::Axis;
use rewire_analysis::node::{By, Component, Node, NodeKind};
use rewire_analysis::path::{FreezePolicy, Path, Receiver, patch_path, path_patching};
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_hooks::{HookPoint, Site};
use rewire_model::Transformer;
use rewire_tasks::LogitDiff;
use rewire_tests::compare::{Tolerance, array, assert_close};
use rewire_tests::fixture::{Fixture, processings};
use rewire_tests::on_every_backend;

/// For normalized effects and for patterns. The absolute part is four times the largest difference
/// measured on both CPU backends: 3.6e-7, for single prompts.
const TOLERANCE: Tolerance = Tolerance::new(1.5e-6, 1e-5);

on_every_backend!(path_tables_match_transformer_lens);

pub(crate) fn receivers(list: &str) -> Vec<Receiver> {
    list.split(',').map(|text| text.parse().unwrap()).collect()
}

/// Returns the receivers of a table. Its name lists them, except that the TransformerLens oracle
/// has shorter names.
fn receivers_of(table: &str) -> Vec<Receiver> {
    receivers(match table {
        "resid_post_last" => "resid_post:3",
        "q" => "q:2.1,q:3.0,q:3.3",
        "k" => "k:2.1,k:3.0,k:3.3",
        "v" => "v:3.2,v:2.0",
        "qkv_2.1" => "q:2.1,k:2.1,v:2.1",
        named => named,
    })
}

/// Returns the senders of a table, and whether MLPs on the path are recomputed.
fn senders_of(table: &str) -> Option<(NodeKind, bool)> {
    let (name, with_mlps) = table.strip_suffix("_nomlp").map_or((table, true), |name| (name, false));
    let kind = match name {
        "z" => NodeKind::all(Component::HeadZ),
        "z_by_pos" | "head_z@position" => NodeKind::by_position(Component::HeadZ),
        other => NodeKind::all(other.strip_suffix("_per_prompt").unwrap_or(other).parse().ok()?),
    };
    Some((kind, with_mlps))
}

fn path_tables_match_transformer_lens<B: Backend>() {
    for fixture in Fixture::all() {
        let mut compared = 0;
        for (weights, processing) in processings() {
            let model: Transformer<B> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let metric = LogitDiff::new(&pairs);
            for (name, expected) in &fixture.results {
                let Some(table) = name.strip_prefix(&format!("{weights}/path/")) else { continue };
                let (ends, senders) = table.split_once('/').unwrap();
                let Some((kind, with_mlps)) = senders_of(senders) else { continue };
                let policy = match with_mlps {
                    true => FreezePolicy::path_patching(),
                    false => FreezePolicy::direct(),
                };
                let what = format!("{} {name} ({policy})", fixture.name);
                let receivers = receivers_of(ends);
                let found = path_patching(
                    &model,
                    Question::new(&pairs, &metric),
                    &[kind],
                    &receivers,
                    policy,
                    Direction::Noising,
                    &Execution::default(),
                )
                .unwrap();
                assert_eq!(found.unreached, [], "{what}");
                let effects = &found.outcome.effects[0];
                let mut actual = effects.mean();
                if senders.ends_with("_per_prompt") {
                    actual = effects.values.clone();
                    // Prompts are the last axis of the table.
                    actual = actual.permuted_axes(vec![1, 2, 0]).as_standard_layout().into_owned();
                }
                if kind.by == By::Position {
                    // TransformerLens puts positions before heads.
                    actual.swap_axes(1, 2);
                }
                if kind.component == Component::MlpPost {
                    // The table has only the first neurons.
                    let units = expected.shape()[1];
                    actual = actual.slice_axis(Axis(1), (0..units).into()).to_owned();
                }
                assert_close(&actual, expected, TOLERANCE, &what);
                compared += 1;
            }
        }
        assert!(compared >= 30, "{}: only {compared} tables of path patching", fixture.name);
    }
}

#[test]
fn attention_patterns_in_the_second_run_match_transformer_lens() {
    let list = "q:1.1,q:2.0,q:2.3";
    for fixture in Fixture::all().iter().filter(|fixture| fixture.is_own()) {
        for (weights, processing) in processings() {
            let model: Transformer<Flex> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let path = Path { senders: vec![Node::new(0, Component::HeadZ).unit(2)], receivers: receivers(list) };
            let patterns = |p: HookPoint| p.site() == Some(Site::Pattern);
            let (metric, policy) = (LogitDiff::new(&pairs), FreezePolicy::default());
            let run = patch_path(&model, &pairs, &metric, &path, policy, Direction::Noising, patterns).unwrap();
            let expected = fixture.table(&format!("{weights}/path/{list}/patterns_0.2")).unwrap();
            for (i, (layer, head)) in [(1, 1), (2, 0), (2, 3)].into_iter().enumerate() {
                let pattern = array(run.cache.block::<4>(layer, Site::Pattern).unwrap());
                let last = pattern.shape()[2] - 1;
                let found = pattern.index_axis(Axis(1), head).index_axis(Axis(1), last).to_owned();
                let what = format!("{} {weights} pattern of {layer}.{head}", fixture.name);
                assert_close(&found, &expected.index_axis(Axis(0), i).to_owned(), TOLERANCE, &what);
            }
        }
    }
}
