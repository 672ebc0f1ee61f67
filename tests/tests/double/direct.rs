//! Analyses of what heads and neurons write to the logits directly equal literal versions on random
//! models of every family, in float64.

use burn::tensor::{Bool, Tensor, TensorData};
use burn_ndarray::NdArray;
use ndarray::{Array1, Array3, ArrayD, Axis as Dimension, IxDyn, s};
use proptest::prelude::*;
use rewire_analysis::heads::{
    CopyNorms, KeptTokens, LOGIT_DIFF_BEFORE_CAP, backup_heads, copy_scores, copy_suppression, logit_attribution,
};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::run::Execution;
use rewire_hooks::{ActivationCache, Head, HookPoint, NormSite, Patch, Recorder, Site};
use rewire_model::{Architecture, FinalNormGain, HeadInput, Run, Transformer, TransformerConfig, WeightProcessing};
use rewire_tasks::PromptPairs;
use rewire_tests::random::{any_family, any_pairs};

type Double = NdArray<f64>;

const FINAL_SCALE: HookPoint = HookPoint::FinalNorm(NormSite::Scale);

fn model(config: &TransformerConfig, seed: u64, processing: WeightProcessing) -> Transformer<Double> {
    Transformer::random(config, seed, &Default::default()).processed(processing)
}

/// Returns the same weights as a model's files have, or processed.
fn processing(folds: bool) -> WeightProcessing {
    if folds { WeightProcessing::default() } else { WeightProcessing::none() }
}

fn doubles<const D: usize>(tensor: Tensor<Double, D>) -> ArrayD<f64> {
    let shape = tensor.dims();
    ArrayD::from_shape_vec(IxDyn(&shape), tensor.into_data().iter::<f64>().collect()).unwrap()
}

/// Asserts that numbers are equal up to the float32 in which results, and terms of this `size`, are
/// stored.
fn assert_equal(found: f32, literal: f64, size: f64, what: &str) {
    let found = f64::from(found);
    assert!((found - literal).abs() <= 1e-6 * (size + literal.abs()), "{what}: {found} is not {literal}");
}

/// Returns each prompt's logit difference at END, of logits `[prompt, pos, token]`.
fn differences(logits: &ArrayD<f64>, pairs: &PromptPairs) -> Vec<f64> {
    let mean = |prompt: usize, tokens: &[u32]| {
        let logit = |token: &u32| logits[[prompt, pairs.end(prompt), *token as usize]];
        tokens.iter().map(logit).sum::<f64>() / tokens.len() as f64
    };
    let of = |(prompt, pair): (usize, &rewire_tasks::PromptPair)| {
        mean(prompt, &pair.answers) - mean(prompt, &pair.wrong_answers)
    };
    pairs.pairs().iter().enumerate().map(of).collect()
}

/// Returns the logits before a bound on them: the inverse of the bound.
fn before_cap(logits: ArrayD<f64>, config: &TransformerConfig) -> ArrayD<f64> {
    match config.logit_cap {
        Some(cap) => logits.mapv(|logit| cap * (logit / cap).atanh()),
        None => logits,
    }
}

/// One head (`Site::Z`) or neuron (`Site::MlpPost`).
#[derive(Debug, Clone, Copy)]
struct Unit {
    layer: usize,
    site: Site,
    number: usize,
}

/// Returns the logit differences and activations of the clean run with some units at zero. With
/// `held`, later layers add to the stream what they add in that cache, and the norm after the unit
/// and the final norm have the scales of that cache.
fn run(
    model: &Transformer<Double>,
    pairs: &PromptPairs,
    gone: &[Unit],
    held: Option<(&ActivationCache<Double>, Unit)>,
) -> (Vec<f64>, ActivationCache<Double>) {
    let config = model.config();
    let mut patch = Patch::new();
    for Unit { layer, site, .. } in gone {
        let [batch, pos] = [pairs.len(), pairs.width()];
        let is_gone = |number: usize| gone.iter().any(|u| u.layer == *layer && u.site == *site && u.number == number);
        let point = HookPoint::block(*layer, *site);
        patch = if *site == Site::Z {
            let dims = [batch, pos, config.n_heads, config.d_head];
            let mask = (0..dims.iter().product()).map(|i: usize| is_gone(i / config.d_head % config.n_heads));
            let mask = TensorData::new(mask.collect::<Vec<bool>>(), dims);
            let mask = Tensor::<Double, 4, Bool>::from_data(mask, &model.device());
            patch.replace_where(point, Tensor::<Double, 4>::zeros(dims, &model.device()), mask)
        } else {
            let dims = [batch, pos, config.d_mlp];
            let mask = (0..dims.iter().product()).map(|i: usize| is_gone(i % config.d_mlp));
            let mask = TensorData::new(mask.collect::<Vec<bool>>(), dims);
            let mask = Tensor::<Double, 3, Bool>::from_data(mask, &model.device());
            patch.replace_where(point, Tensor::<Double, 3>::zeros(dims, &model.device()), mask)
        };
    }
    if let Some((cache, unit)) = held {
        let of_layer = if unit.site == Site::Z { Site::Ln1PostScale } else { Site::Ln2PostScale };
        let own = config.post_norms.then_some(HookPoint::block(unit.layer, of_layer));
        let attention = (unit.layer + 1..config.n_layers).map(|layer| HookPoint::block(layer, Site::AttnOut));
        let first_mlp = unit.layer + usize::from(unit.site != Site::Z);
        let mlps = (first_mlp..config.n_layers).map(|layer| HookPoint::block(layer, Site::MlpOut));
        for point in [FINAL_SCALE].into_iter().chain(own).chain(attention).chain(mlps) {
            patch = patch.replace(point, cache.get::<3>(point).unwrap());
        }
    }
    let mut recorder = Recorder::all();
    let tokens = model.tokens(&pairs.clean()).unwrap();
    let logits = model.forward(Run::tokens(tokens), (&mut patch, &mut recorder)).unwrap();
    patch.finish().unwrap();
    (differences(&before_cap(doubles(logits), config), pairs), recorder.into_cache())
}

/// Returns the direct contribution of a unit per prompt, literally: how much the logit difference
/// falls if the unit writes nothing, with all scales and all later outputs held.
fn literal(model: &Transformer<Double>, pairs: &PromptPairs, ablated: &[Unit], unit: Unit) -> Vec<f64> {
    let (whole, cache) = run(model, pairs, ablated, None);
    let (without, _) = run(model, pairs, &[ablated, &[unit]].concat(), Some((&cache, unit)));
    whole.iter().zip(without).map(|(whole, without)| whole - without).collect()
}

fn heads(config: &TransformerConfig) -> Vec<Head> {
    (0..config.n_layers).flat_map(|layer| (0..config.n_heads).map(move |head| Head::new(layer, head))).collect()
}

fn of_head(Head { layer, head }: Head) -> Unit {
    Unit { layer, site: Site::Z, number: head }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn direct_contributions_equal_literal_removals(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, folds in any::<bool>()) {
        let model = model(&config, seed, processing(folds));
        let nodes = [NodeKind::all(Component::HeadZ), NodeKind::all(Component::MlpPost)];
        let found = logit_attribution(&model, &pairs, &nodes, FinalNormGain::Applied, &Execution::default()).unwrap();
        let neurons = (0..config.n_layers).map(|layer| Unit { layer, site: Site::MlpPost, number: 3 * layer + 1 });
        for unit in heads(&config).into_iter().map(of_head).chain(neurons) {
            let values = &found.effects[usize::from(unit.site != Site::Z)].values;
            for (prompt, literal) in literal(&model, &pairs, &[], unit).into_iter().enumerate() {
                assert_equal(values[[prompt, unit.layer, unit.number]], literal, 1.0, &format!("{unit:?}"));
            }
        }
    }

    #[test]
    fn direct_contributions_and_biases_sum_to_the_logit_difference(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, folds in any::<bool>()) {
        let model = model(&config, seed, processing(folds));
        let kinds = [Component::HeadResult, Component::AttnOut, Component::MlpPost, Component::MlpOut, Component::ResidPre, Component::ResidPost];
        let found = logit_attribution(&model, &pairs, &kinds.map(NodeKind::all), FinalNormGain::Applied, &Execution::default()).unwrap();
        let expected = if config.logit_cap.is_some() { LOGIT_DIFF_BEFORE_CAP } else { "logit-diff" };
        prop_assert_eq!(found.metric, expected);
        let [heads, attention, neurons, mlps, before, after] = [0, 1, 2, 3, 4, 5].map(|i| found.effects[i].values.mapv(f64::from));
        let (whole, cache) = run(&model, &pairs, &[], None);
        let bias = doubles(model.logit_bias(&tokens(&pairs, |p| &p.answers), &tokens(&pairs, |p| &p.wrong_answers)));
        for prompt in 0..pairs.len() {
            assert_equal(found.baselines.clean[prompt], whole[prompt], 1.0, "the logit difference before the bound");
            for layer in 0..config.n_layers {
                let biases = [model.b_o(layer), model.mlp_out(layer).1];
                let [of_attention, of_mlp] = [Site::Ln1PostScale, Site::Ln2PostScale].map(|site| {
                    let bias = &biases[usize::from(site == Site::Ln2PostScale)];
                    bias_along(&model, &pairs, &cache, prompt, (layer, site), bias.clone())
                });
                let sum = |values: &ArrayD<f64>| values.slice(s![prompt, layer, ..]).sum();
                let size = |values: &ArrayD<f64>| 1.0 + values.slice(s![prompt, layer, ..]).mapv(f64::abs).sum();
                let at = |values: &ArrayD<f64>| values[[prompt, layer]];
                assert_equal(at(&attention) as f32, sum(&heads) + of_attention, size(&heads), "heads of a layer");
                assert_equal(at(&mlps) as f32, sum(&neurons) + of_mlp, size(&neurons), "neurons of a layer");
                let parts = [&before, &attention, &mlps].map(at);
                let size = 1.0 + parts.iter().map(|part| part.abs()).sum::<f64>();
                assert_equal(at(&after) as f32, parts.iter().sum(), size, "layers");
            }
            let last = after[[prompt, config.n_layers - 1]] + bias[[prompt]];
            assert_equal(found.baselines.clean[prompt], last, 1.0, "the whole");
        }
    }

    #[test]
    fn backup_heads_equal_literal_removals(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, ablated in 0_usize..12) {
        let model = model(&config, seed, WeightProcessing::none());
        let all = heads(&config);
        let ablated = [all[ablated % all.len()], all[ablated / 2 % all.len()]];
        let found = backup_heads(&model, &pairs, &ablated, FinalNormGain::Applied, &Execution::default()).unwrap();
        let gone = ablated.map(of_head);
        for (gone, contributions, differences) in [
            (&[][..], &found.before, &found.logit_difference_before),
            (&gone, &found.after, &found.logit_difference_after),
        ] {
            let (whole, _) = run(&model, &pairs, gone, None);
            for (prompt, whole) in whole.into_iter().enumerate() {
                assert_equal(differences[prompt], whole, 1.0, "the logit difference");
            }
            for head in &all {
                for (prompt, literal) in literal(&model, &pairs, gone, of_head(*head)).into_iter().enumerate() {
                    assert_equal(contributions[[prompt, head.layer, head.head]], literal, 1.0, &head.to_string());
                }
            }
        }
    }

    #[test]
    fn copy_suppression_equals_its_definition(config in any_family(), pairs in any_pairs(), seed in 0_u64..1000, folds in any::<bool>(), share in 1_usize..20) {
        let model = model(&config, seed, processing(folds));
        let share = share as f64 / 20.0;
        let keep = KeptTokens { share, ..KeptTokens::default() };
        let all = heads(&config);
        let found = copy_suppression(&model, &pairs, &all, &keep, &Execution::default()).unwrap();
        for (head, found) in all.into_iter().zip(found) {
            let [preserved, ablated] = literal_divergences(&model, &pairs, head, share);
            for (found, literal) in [(found.preserved, preserved), (found.ablated, ablated)] {
                // Logits in float32 limit the precision of the divergences.
                prop_assert!((found - literal).abs() <= 1e-5 * literal + 2e-6, "{:?} {}: {} is not {}", config.architecture, head, found, literal);
            }
        }
    }
}

/// Returns the tokens on one side of each pair.
fn tokens(pairs: &PromptPairs, side: fn(&rewire_tasks::PromptPair) -> &Vec<u32>) -> Vec<Vec<u32>> {
    pairs.pairs().iter().map(|pair| side(pair).clone()).collect()
}

/// Returns the contribution of an output bias of a layer, which passes the norm with the scale at
/// `site` if the model has it.
fn bias_along(
    model: &Transformer<Double>,
    pairs: &PromptPairs,
    cache: &ActivationCache<Double>,
    prompt: usize,
    (layer, site): (usize, Site),
    bias: Tensor<Double, 1>,
) -> f64 {
    let norm = model.config().norm;
    let gain = match site {
        Site::Ln1PostScale => model.after_attention_norm_gain(layer),
        _ => model.after_mlp_norm_gain(layer),
    };
    let at_end = |point| doubles(cache.get::<3>(point).unwrap())[[prompt, pairs.end(prompt), 0]];
    let added = match gain {
        Some(gain) => norm.centered(bias) * gain / at_end(HookPoint::block(layer, site)),
        None => bias,
    };
    let sides = [tokens(pairs, |p| &p.answers), tokens(pairs, |p| &p.wrong_answers)];
    let direction = doubles(model.logit_direction(&sides[0], &sides[1], FinalNormGain::Applied));
    let along = doubles(norm.centered(added)) * direction.index_axis(Dimension(0), prompt);
    along.sum() / at_end(FINAL_SCALE)
}

/// Returns what a head adds to the residual stream at each destination from each source,
/// `[prompt, dest, src, d_model]`, with the scale of a norm after attention as it is at the
/// destination.
fn added_by_sources(model: &Transformer<Double>, cache: &ActivationCache<Double>, head: Head) -> ArrayD<f64> {
    let config = model.config();
    let at = |site| cache.block::<4>(head.layer, site).unwrap();
    let pattern = doubles(at(Site::Pattern).narrow(1, head.head, 1)); // [prompt, 1, dest, src]
    let shared = head.head / config.heads_per_key_value_head();
    let values = doubles(at(Site::V).narrow(2, shared, 1)); // [prompt, src, 1, d_head]
    let w_o = doubles(model.w_o(head.layer).narrow(0, head.head, 1)); // [1, d_head, d_model]
    let gain = model.after_attention_norm_gain(head.layer).map(doubles);
    let scale = gain.is_some().then(|| doubles(cache.block::<3>(head.layer, Site::Ln1PostScale).unwrap()));
    let [prompts, pos] = [pattern.shape()[0], pattern.shape()[2]];
    ArrayD::from_shape_fn(IxDyn(&[prompts, pos, pos, config.d_model]), |index| {
        let [prompt, dest, src, dim] = [0, 1, 2, 3].map(|axis| index[axis]);
        let written: f64 = (0..config.d_head).map(|i| values[[prompt, src, 0, i]] * w_o[[0, i, dim]]).sum();
        let added = match (&gain, &scale) {
            // The norms after attention are RMSNorms, which do not center.
            (Some(gain), Some(scale)) => written * gain[[dim]] / scale[[prompt, dest, 0]],
            _ => written,
        };
        pattern[[prompt, 0, dest, src]] * added
    })
}

/// The directions of the residual stream that raise each token's logit, with the final norm's gain
/// and centering, `[token, d_model]`.
fn unembedding_directions(model: &Transformer<Double>) -> ArrayD<f64> {
    let columns = model.unembedding().transpose();
    let columns = match model.final_norm_gain() {
        Some(gain) => columns * gain.unsqueeze_dim(0),
        None => columns,
    };
    doubles(model.config().norm.centered(columns))
}

/// Returns the sources whose tokens are kept at one destination.
fn kept_sources(lens: &Array1<f64>, tokens: &[u32], dest: usize, share: f64) -> Vec<usize> {
    let logit = |src: &usize| lens[tokens[*src] as usize];
    let distinct = (0..=dest).filter(|src| !tokens[..*src].contains(&tokens[*src]));
    let mut logits: Vec<f64> = distinct.map(|src| logit(&src)).collect();
    logits.sort_by(|a, b| b.total_cmp(a));
    let n_kept = ((share * (dest + 1) as f64).ceil() as usize).min(logits.len());
    let least = logits[n_kept - 1];
    (0..=dest).filter(|src| logit(src) >= least).collect()
}

/// Returns KL(clean || preserved) and KL(clean || ablated) of one head, by the definition of
/// copy-suppression-preserving ablation.
fn literal_divergences(model: &Transformer<Double>, pairs: &PromptPairs, head: Head, share: f64) -> [f64; 2] {
    let prompts = pairs.clean();
    let (logits, cache) = model.run_with_cache(model.tokens(&prompts).unwrap()).unwrap();
    let logits = before_cap(doubles(logits), model.config());
    let added = added_by_sources(model, &cache, head);
    let pattern = doubles(cache.block::<4>(head.layer, Site::Pattern).unwrap());
    let [stream, scale] =
        [HookPoint::block(head.layer, Site::ResidPre), FINAL_SCALE].map(|p| doubles(cache.get::<3>(p).unwrap()));
    let directions = unembedding_directions(model).into_dimensionality::<ndarray::Ix2>().unwrap();
    let outputs: Array3<f64> = added.sum_axis(Dimension(2)).into_dimensionality().unwrap();
    let probabilities = |logits: &Array1<f64>| {
        let bounded = model.config().logit_cap.map_or(logits.clone(), |cap| logits.mapv(|v| cap * (v / cap).tanh()));
        let exps = bounded.mapv(f64::exp);
        &exps / exps.sum()
    };
    let (mut sums, mut count) = ([0.0; 2], 0);
    for (prompt, tokens) in prompts.iter().enumerate() {
        for dest in 0..=pairs.end(prompt) {
            let long_enough: Vec<usize> = (0..pairs.len()).filter(|p| dest <= pairs.end(*p)).collect();
            let mean = long_enough.iter().map(|p| outputs.slice(s![*p, dest, ..]).to_owned());
            let mean = mean.reduce(|sum, output| sum + output).unwrap() / long_enough.len() as f64;
            let read: Array1<f64> = stream.slice(s![prompt, dest, ..]).to_owned();
            let kept = kept_sources(&directions.dot(&read), tokens, dest, share);
            let [mut preserved, mut ablated] = [(); 2].map(|()| Array1::<f64>::zeros(read.len()));
            for src in 0..=dest {
                let of_mean = &mean * pattern[[prompt, head.head, dest, src]];
                ablated += &of_mean;
                if kept.contains(&src) {
                    let column = directions.row(tokens[src] as usize);
                    let unit = &column / column.dot(&column).sqrt();
                    let moved: Array1<f64> = added.slice(s![prompt, dest, src, ..]).to_owned();
                    preserved = preserved + &unit * (moved - &of_mean).dot(&unit).min(0.0);
                }
                preserved += &of_mean;
            }
            let clean: Array1<f64> = logits.slice(s![prompt, dest, ..]).to_owned();
            let output = outputs.slice(s![prompt, dest, ..]);
            for (sum, new) in sums.iter_mut().zip([preserved, ablated]) {
                let changed = &clean + &(directions.dot(&(&new - &output)) / scale[[prompt, dest, 0]]);
                let [p, q] = [probabilities(&clean), probabilities(&changed)];
                *sum += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
            }
            count += 1;
        }
    }
    sums.map(|sum| sum / f64::from(count))
}

/// The literal version applies the norm after attention and the bound on the logits whole. Neither
/// the scale of the one nor the other may change a ranking.
#[test]
fn copy_scores_equal_literal_rankings() {
    for (family, seed) in Architecture::ALL.into_iter().flat_map(|family| (0..3).map(move |seed| (family, seed))) {
        let config = TransformerConfig::tiny(family);
        let model = model(&config, seed, WeightProcessing::none());
        let prompts: Vec<Vec<u32>> = (0..6).map(|p| (0..5).map(|i| (7 * p + 5 * i + 3) % 19).collect()).collect();
        let names = vec![vec![1, 3, 4]; prompts.len()];
        let mut recorder = Recorder::filtered(|p| p == HookPoint::block(0, Site::ResidPost));
        model.forward(Run::tokens(model.tokens(&prompts).unwrap()), &mut recorder).unwrap();
        let stream: Tensor<Double, 3> = recorder.into_cache().block(0, Site::ResidPost).unwrap();
        for norms in [CopyNorms::Without, CopyNorms::With] {
            let found = copy_scores(&model, &prompts, &names, norms, &Execution::default()).unwrap();
            for Head { layer, head } in heads(&config) {
                for (sign, scores) in [(1.0, &found.positive), (-1.0, &found.negative)] {
                    let read = match norms {
                        CopyNorms::Without => stream.clone(),
                        CopyNorms::With => model.attention_norm(layer, stream.clone(), &mut ()),
                    };
                    let shared = head / config.heads_per_key_value_head();
                    let v = model.head_inputs(layer, HeadInput::V, &[shared], read).squeeze_dim::<3>(2);
                    let w_o = model.w_o(layer).narrow(0, head, 1);
                    let written = v.matmul(w_o.expand([prompts.len(), config.d_head, config.d_model]));
                    let written = model.after_attention_norm(layer, written) * sign;
                    let logits = doubles(match norms {
                        CopyNorms::Without => model.logits(written),
                        CopyNorms::With => model.logits(model.unembedding_norm(written)),
                    });
                    let is_copied = |prompt: usize, pos: usize| {
                        let all = logits.slice(s![prompt, pos, ..]).to_owned();
                        all.iter().filter(|v| **v >= all[prompts[prompt][pos] as usize]).count() <= 5
                    };
                    let places = (0..prompts.len()).flat_map(|prompt| [1, 3, 4].map(|pos| (prompt, pos)));
                    let copied = places.filter(|(prompt, pos)| is_copied(*prompt, *pos)).count();
                    let percent = 100.0 * copied as f32 / 18.0;
                    assert!(
                        (scores[[layer, head]] - percent).abs() < 1e-3,
                        "{family:?} {seed} L{layer}H{head} {norms:?}"
                    );
                }
            }
        }
    }
}
