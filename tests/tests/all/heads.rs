//! Compares direct logit attribution, backup heads, copy scores and copy suppression with
//! TransformerLens, and S2-inhibition with its definition.

use std::collections::BTreeSet;

use burn::backend::Flex;
use burn::tensor::backend::Backend;
use ndarray::{Array, ArrayD, Axis, IxDyn};
use rewire_analysis::AnalysisError;
use rewire_analysis::heads::{
    CopyNorms, Inhibition, KeptTokens, backup_heads, copy_scores, copy_suppression, logit_attribution, s2_inhibition,
};
use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::path::{FreezePolicy, Input, Path, Receiver, patch_path, patch_paths};
use rewire_analysis::run::{Direction, Execution, Scale};
use rewire_hooks::{Head, HookPoint, NormSite, Recorder, Site};
use rewire_model::{FinalNormGain, ReadPositions, Readout, Run, Transformer, WeightProcessing};
use rewire_tasks::ioi::{Corruption, IoiGenerator, Roles, Split};
use rewire_tasks::{LogitDiff, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::{Tolerance, array, assert_close, assert_within};
use rewire_tests::fixture::{Fixture, processings};
use rewire_tests::on_every_backend;
use rewire_toy::Toy;

/// The absolute part is five times the largest difference measured on both CPU backends: 9.2e-7,
/// for divergences.
const TOLERANCE: Tolerance = Tolerance::new(5e-6, 1e-5);

/// The ablated heads, the name tokens and the excluded tokens in `tests/fixtures/circuits.py`.
const ABLATED: [Head; 2] = [Head::new(1, 2), Head::new(2, 0)];
const NAMES: [usize; 3] = [2, 4, 7];
const EXCLUDED: [u32; 2] = [3, 17];
/// The name movers of its S2-inhibition.
const MOVERS: [Head; 2] = [Head::new(1, 1), Head::new(2, 3)];

on_every_backend!(head_tables_match_transformer_lens);

fn head_tables_match_transformer_lens<B: Backend>() {
    for fixture in Fixture::all() {
        for (weights, processing) in processings() {
            let model: Transformer<B> = fixture.model(processing);
            let pairs = fixture.pairs(&model);
            let close = |actual: ArrayD<f32>, table: &str| {
                let name = format!("{weights}/{table}");
                let expected = fixture.table(&name).unwrap_or_else(|| panic!("{} has no {name}", fixture.name));
                assert_close(&actual, expected, TOLERANCE, &format!("{} {name}", fixture.name));
            };
            // Batches smaller than the set of pairs, so that several are joined.
            let execution = Execution { prompt_batch: 4, ..Execution::default() };
            let heads = [NodeKind::all(Component::HeadResult)];
            // TransformerLens omits the final norm's gain from its tables for unprocessed weights.
            let direct = logit_attribution(&model, &pairs, &heads, FinalNormGain::LeftOut, &execution).unwrap();
            close(direct.effects[0].mean(), "dla/heads_clean");

            let ablated = if fixture.is_own() { ABLATED } else { [Head::new(2, 1), Head::new(3, 0)] };
            let backup = backup_heads(&model, &pairs, &ablated, FinalNormGain::LeftOut, &execution).unwrap();
            close(backup.before.mean_axis(Axis(0)).unwrap().into_dyn(), "dla/heads_clean");
            close(backup.after.mean_axis(Axis(0)).unwrap().into_dyn(), "dla/heads_ablated");
            if !fixture.is_own() {
                continue;
            }
            let [_, after] = backup.logit_differences();
            let after = ArrayD::from_elem(IxDyn(&[1]), after as f32);
            close(after, "ablate/zero_1.2_2.0");

            let names = vec![NAMES.to_vec(); pairs.len()];
            for (norms, name) in [(CopyNorms::Without, "without"), (CopyNorms::With, "with")] {
                let scores = copy_scores(&model, &pairs.clean(), &names, norms, &execution).unwrap();
                assert_eq!(scores.tokens, 3 * pairs.len());
                close(scores.positive.into_dyn(), &format!("copy/{name}_norms/positive"));
                close(scores.negative.into_dyn(), &format!("copy/{name}_norms/negative"));
            }

            let config = model.config();
            let all: Vec<_> =
                (0..config.n_layers).flat_map(|l| (0..config.n_heads).map(move |h| Head::new(l, h))).collect();
            s2_inhibition_matches(&fixture, &model, &pairs, &all, weights);

            // In prompts with repeated tokens, every occurrence of a kept token is kept.
            let repeats = fixture.pairs_of(&model, "cspa_pairs.jsonl");
            for (pairs, share, table) in
                [(&pairs, 0.05, "cspa"), (&repeats, 0.05, "cspa_repeats"), (&repeats, 0.25, "cspa_repeats_quarter")]
            {
                let keep = KeptTokens { share, excluded: BTreeSet::from(EXCLUDED) };
                let found = copy_suppression(&model, pairs, &all, &keep, &execution).unwrap();
                let numbers = found.iter().flat_map(|s| [s.preserved, s.ablated, s.score().unwrap()].map(|v| v as f32));
                let shape = IxDyn(&[config.n_layers, config.n_heads, 3]);
                close(Array::from_shape_vec(shape, numbers.collect()).unwrap(), table);
            }
        }
    }
}

/// Compares S2-inhibition of every head with TransformerLens' hooks, prompt by prompt.
fn s2_inhibition_matches<B: Backend>(
    fixture: &Fixture,
    model: &Transformer<B>,
    pairs: &PromptPairs,
    heads: &[Head],
    weights: &str,
) {
    let table = |name: &str| fixture.table(name).unwrap_or_else(|| panic!("{} has no {name}", fixture.name));
    let positions = table("s2_inhibition/positions");
    let role = |prompt: usize, i: usize| positions[[prompt, i]] as usize;
    let roles: Vec<Roles> =
        (0..pairs.len()).map(|p| Roles { io: 0, s1: role(p, 0), s2: role(p, 1), end: role(p, 2) }).collect();
    let execution = Execution { prompt_batch: 4, ..Execution::default() };
    let found = s2_inhibition(model, pairs, &roles, heads, &MOVERS, &execution).unwrap();
    let (layers, heads) = (model.config().n_layers, model.config().n_heads);
    let close = |name: &str, shape: &[usize], of: &dyn Fn(&Inhibition) -> Vec<f32>| {
        let shape = [&[layers, heads], shape, &[pairs.len()]].concat();
        let actual = ArrayD::from_shape_vec(shape, found.iter().flat_map(of).collect()).unwrap();
        let what = format!("{} {weights} S2-inhibition: {name}", fixture.name);
        assert_close(&actual, table(&format!("{weights}/s2_inhibition/{name}")), TOLERANCE, &what);
    };
    close("attention_to_s2", &[], &|inhibition| inhibition.s2_attention.clone());
    close("logit_diff_change", &[], &|inhibition| inhibition.logit_difference_change.clone());
    close("mover_attention_to_s1_change", &[MOVERS.len()], &|inhibition| {
        inhibition.s1_attention_change.t().iter().copied().collect()
    });
}

#[test]
fn logit_contributions_and_biases_sum_to_the_logit_difference() {
    for toy in Toy::ALL {
        for processing in [WeightProcessing::default(), WeightProcessing::none()] {
            contributions_sum(toy, processing);
        }
    }
}

fn contributions_sum(toy: Toy, processing: WeightProcessing) {
    let (model, pairs, _) = toy_pairs_with(toy, processing);
    let kinds = [Component::HeadZ, Component::MlpOut, Component::AttnOut, Component::MlpPost, Component::ResidPost];
    let nodes = kinds.map(NodeKind::all);
    let found = logit_attribution(&model, &pairs, &nodes, FinalNormGain::Applied, &Execution::default()).unwrap();
    assert_eq!(found.scale, Scale::Metric);
    let [heads, mlps, attention, neurons, stream] = [0, 1, 2, 3, 4].map(|i| &found.effects[i].values);
    let last = stream.shape()[1] - 1;
    // The contribution of a constant vector: the output biases, which belong to no head or neuron.
    let mut scale = Recorder::filtered(|p| p == HookPoint::FinalNorm(NormSite::Scale));
    let read = Readout { positions: ReadPositions::Each(pairs.ends()), columns: None };
    model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()).with_readout(read), &mut scale).unwrap();
    let scale = array(scale.into_cache().get::<3>(HookPoint::FinalNorm(NormSite::Scale)).unwrap());
    let tokens = |of: fn(&rewire_tasks::PromptPair) -> Vec<u32>| pairs.pairs().iter().map(of).collect::<Vec<_>>();
    let [right, wrong] = [tokens(|p| p.answers.clone()), tokens(|p| p.wrong_answers.clone())];
    let direction = array(model.logit_direction(&right, &wrong, FinalNormGain::Applied));
    let bias = array(model.logit_bias(&right, &wrong));
    let along = |vector: ArrayD<f32>, prompt: usize| {
        let centered = &vector - vector.mean().unwrap();
        (centered * direction.index_axis(Axis(0), prompt)).sum() / scale[[prompt, 0, 0]]
    };
    for prompt in 0..pairs.len() {
        let whole = found.baselines.clean[prompt] - bias[prompt];
        assert!((stream[[prompt, last]] - whole).abs() < 1e-3, "{} and {whole}", stream[[prompt, last]]);
        for layer in 0..=last {
            let of_layer = |values: &ArrayD<f32>| values.index_axis(Axis(0), prompt).index_axis(Axis(0), layer).sum();
            let (_, b_out) = model.mlp_out(layer);
            let biases = [model.b_o(layer), b_out].map(|b| along(array(b), prompt));
            assert!((of_layer(heads) + biases[0] - attention[[prompt, layer]]).abs() < 1e-3);
            assert!((of_layer(neurons) + biases[1] - mlps[[prompt, layer]]).abs() < 1e-3);
            if layer > 0 {
                let added = attention[[prompt, layer]] + mlps[[prompt, layer]];
                assert!((stream[[prompt, layer - 1]] + added - stream[[prompt, layer]]).abs() < 1e-3);
            }
        }
    }
}

/// Folding the norms rewrites the same model, so it must not change a head's contribution to the
/// logits.
#[test]
fn folding_the_norms_changes_no_logit_attribution() {
    let folded = WeightProcessing { fold_norm: true, ..WeightProcessing::none() };
    let nodes = [Component::HeadResult, Component::MlpPost, Component::ResidPost].map(NodeKind::all);
    let execution = Execution::default();
    for toy in Toy::ALL {
        let found = [WeightProcessing::none(), folded].map(|processing| {
            let (model, pairs, _) = toy_pairs_with(toy, processing);
            let direct = logit_attribution(&model, &pairs, &nodes, FinalNormGain::Applied, &execution).unwrap();
            let backup = backup_heads(&model, &pairs, &[Head::new(3, 1)], FinalNormGain::Applied, &execution).unwrap();
            let values = direct.effects.into_iter().map(|effects| effects.values);
            values.chain([backup.before.into_dyn(), backup.after.into_dyn()]).collect::<Vec<_>>()
        });
        for (raw, folded) in found[0].iter().zip(&found[1]) {
            assert_within(raw, folded, Tolerance::new(1e-5, 1e-4), toy.name());
        }
    }
}

fn toy_pairs(toy: Toy) -> (Transformer<Flex>, PromptPairs, Vec<Roles>) {
    toy_pairs_with(toy, WeightProcessing::default())
}

fn toy_pairs_with(toy: Toy, processing: WeightProcessing) -> (Transformer<Flex>, PromptPairs, Vec<Roles>) {
    let model = toy.load::<Flex>(&Default::default()).unwrap().processed(processing);
    let tokenizer = toy.tokenizer().unwrap();
    let prompts = IoiGenerator::new(&tokenizer).unwrap().sample(12, 3, Split::All);
    let bos = model.config().bos_token;
    let pairs = Corruption::S2ToIo.pairs(&prompts, &tokenizer, bos).unwrap();
    let bos_len = usize::from(bos.is_some());
    let roles = prompts.iter().map(|p| p.roles(&tokenizer, bos_len).unwrap()).collect();
    (model, pairs, roles)
}

#[test]
fn s2_inhibition_matches_its_definition() {
    let (model, pairs, roles) = toy_pairs(Toy::NeoX);
    let (candidates, movers) = ([Head::new(1, 0), Head::new(2, 3)], [Head::new(2, 5), Head::new(3, 1)]);
    let found = s2_inhibition(
        &model,
        &pairs,
        &roles,
        &candidates,
        &movers,
        &Execution { prompt_batch: 5, ..Execution::default() },
    )
    .unwrap();
    // Attention on the clean run, read from the pattern.
    let mut recorder = Recorder::filtered(|p: HookPoint| p.site() == Some(Site::Pattern));
    model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
    let cache = recorder.into_cache();
    // The change of the logit difference, computed as in a sweep.
    let queries =
        movers.map(|mover| Receiver::new(mover.layer, Input::Q).head(mover.head).at(Positions::Each(pairs.ends())));
    let path = |head: &Head| Path {
        senders: vec![Node::new(head.layer, Component::HeadZ).unit(head.head)],
        receivers: queries.to_vec(),
    };
    let paths: Vec<Path> = candidates.iter().map(path).collect();
    let execution = Execution::default();
    let metric = LogitDiff::new(&pairs);
    let expected =
        patch_paths(&model, asked(&pairs, &metric), &paths, FreezePolicy::default(), Direction::Noising, &execution)
            .unwrap();
    for (i, inhibition) in found.iter().enumerate() {
        assert_eq!(inhibition.head, candidates[i]);
        let Head { layer, head } = candidates[i];
        let pattern = array(cache.block::<4>(layer, Site::Pattern).unwrap());
        for prompt in 0..pairs.len() {
            let expected_attention = pattern[[prompt, head, pairs.end(prompt), roles[prompt].s2]];
            assert!((inhibition.s2_attention[prompt] - expected_attention).abs() < 1e-5);
            let change = inhibition.logit_difference_change[prompt];
            assert!((change - expected.values[[prompt, i]]).abs() < 1e-3, "{change}");
        }
        assert_eq!(inhibition.s1_attention_change.dim(), (pairs.len(), movers.len()));
        // The attention of the movers to S1 in the second run minus that on the clean run, computed
        // separately.
        let policy = FreezePolicy::default();
        let second = patch_path(&model, &pairs, &metric, &paths[i], policy, Direction::Noising, |p| {
            p.site() == Some(Site::Pattern)
        });
        let second = second.unwrap().cache;
        for (mover, &Head { layer, head }) in movers.iter().enumerate() {
            let [before, after] = [&cache, &second].map(|cache| array(cache.block::<4>(layer, Site::Pattern).unwrap()));
            for (prompt, roles) in roles.iter().enumerate() {
                let at = [prompt, head, roles.end, roles.s1];
                let change = inhibition.s1_attention_change[[prompt, mover]];
                assert!((change - (after[at] - before[at])).abs() < 1e-5, "{change}");
            }
        }
        let [s2, change, s1] = inhibition.means();
        let mean = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        assert!((s2 - mean(&inhibition.s2_attention)).abs() < 1e-9);
        assert!((change - mean(&inhibition.logit_difference_change)).abs() < 1e-9);
        assert!((s1 - f64::from(inhibition.s1_attention_change.mean().unwrap())).abs() < 1e-6);
    }
    // A head in the mover's layer or above cannot reach the mover.
    assert!(found[1].s1_attention_change.column(0).iter().all(|v| v.abs() < 1e-6));
    assert!(found[0].s1_attention_change.iter().any(|v| v.abs() > 1e-4));
}

#[test]
fn prompts_without_names_are_refused() {
    let (model, pairs, roles) = toy_pairs(Toy::Gpt2);
    let execution = Execution::default();
    let mut names = vec![vec![2]; pairs.len()];
    names[3] = vec![];
    let error = copy_scores(&model, &pairs.clean(), &names, CopyNorms::With, &execution).unwrap_err();
    assert!(matches!(error, AnalysisError::NoNames { prompt: 3 }), "{error}");
    assert!(error.to_string().starts_with("prompt 3 (counted from 0) has no names"), "{error}");
    names[3] = vec![1, 99];
    let error = copy_scores(&model, &pairs.clean(), &names, CopyNorms::With, &execution).unwrap_err();
    assert!(matches!(error, AnalysisError::NameOutside { prompt: 3, position: 99, .. }), "{error}");
    let error = copy_scores(&model, &pairs.clean(), &[], CopyNorms::With, &execution).unwrap_err();
    assert!(matches!(error, AnalysisError::NoNames { prompt: 0 }), "{error}");
    names[3] = vec![1];
    names.push(vec![1]);
    let error = copy_scores(&model, &pairs.clean(), &names, CopyNorms::With, &execution).unwrap_err().to_string();
    assert_eq!(error, "the list of names has positions for 13 prompts, and there are 12; give one entry per prompt");
    // With one prompt, the mean equals the prompt, so there is no loss to take a share of.
    let one = PromptPairs::new(pairs.pairs()[..1].to_vec()).unwrap();
    let found = copy_suppression(&model, &one, &[Head::new(0, 0)], &KeptTokens::default(), &execution).unwrap();
    assert_eq!(found[0].score(), None);
    let error =
        s2_inhibition(&model, &pairs, &roles[..2], &[Head::new(0, 0)], &[Head::new(1, 0)], &execution).unwrap_err();
    assert!(matches!(error, AnalysisError::NoNames { prompt: 2 }), "{error}");
    let error =
        backup_heads(&model, &pairs, &[Head::new(4, 0)], FinalNormGain::Applied, &execution).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no head_z:L4H0: layer 4 is out of range (the model has 4 layers of 8 heads, counted from 0)"
    );
    let error = copy_suppression(&model, &pairs, &[Head::new(0, 8)], &KeptTokens::default(), &execution)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "there is no L0H8: head 8 is out of range (the model has 4 layers of 8 heads, counted from 0)");
    for (node, reason) in [
        (NodeKind::all(Component::HeadQ), "it writes nothing to the residual stream itself"),
        (NodeKind { component: Component::HeadZ, by: By::Position }, "the logits are read at one position"),
    ] {
        let error =
            logit_attribution(&model, &pairs, &[node], FinalNormGain::Applied, &execution).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
