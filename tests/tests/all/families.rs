//! Every family computes what transformers computes, and patching, integrated gradients and direct
//! contributions have the effects that hooks in transformers have.
//!
//! `fixtures/families.py` made the tables. Further models of the same layout are compared too when
//! `REWIRE_FAMILIES` names their directory.

use std::path::{Path, PathBuf};

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, Axis};
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::integrated::{IntegratedGradientsOptions, integrated_gradients};
use rewire_analysis::node::NodeKind;
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_hooks::{HookPoint, Recorder, Site};
use rewire_model::{
    Architecture, FinalNormGain, ModelFiles, NormKind, Run, Transformer, TransformerConfig, WeightProcessing,
};
use rewire_tasks::{LogitDiff, PairsSource, PromptPairs, read_pairs};
use rewire_tests::compare::{array, largest_difference, scale};
use rewire_tests::fixture::{Arrays, processings, tensors};
use rewire_tests::on_every_backend;

/// Largest allowed difference of an activation, as a share of the largest in its table.
const ACTIVATION: f32 = 1e-4;
/// Largest allowed difference of an effect.
const EFFECT: f32 = 1e-4;

on_every_backend!(
    activations_match_transformers,
    effects_match_hooks_in_transformers,
    integrals_and_direct_contributions_match_transformers
);

fn directories() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/families");
    let further = std::env::var_os("REWIRE_FAMILIES").map(PathBuf::from);
    let entries = |directory: PathBuf| std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        let Ok(config) = std::fs::read_to_string(path.join("model/config.json")) else { return false };
        path.join("results.safetensors").is_file() && !["\"gpt2\"", "\"gpt_neox\""].iter().any(|n| config.contains(n))
    };
    let mut found: Vec<PathBuf> = [Some(own), further].into_iter().flatten().flat_map(entries).filter(is_one).collect();
    found.sort();
    assert!(found.len() >= 15, "only {found:?}");
    found
}

struct Case<B: Backend> {
    name: String,
    model: Transformer<B>,
    pairs: PromptPairs,
    results: Arrays,
}

fn cases<B: Backend>(processing: WeightProcessing) -> impl Iterator<Item = Case<B>> {
    directories().into_iter().map(move |directory| {
        let files = ModelFiles::directory(&directory.join("model")).unwrap();
        let model = Transformer::<B>::load(&files, &Default::default()).unwrap().processed(processing);
        let source = PairsSource::new(None, None, model.config().d_vocab, model.config().n_ctx);
        let pairs = read_pairs(&directory.join("pairs.jsonl"), &source).unwrap().pairs;
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        Case { name, model, pairs, results: tensors(&directory.join("results.safetensors")) }
    })
}

/// Stacks the activations of one site in every layer, `[layer, prompt, ..]`.
fn stacked<B: Backend, const D: usize>(
    cache: &rewire_hooks::ActivationCache<B>,
    site: Site,
    layers: usize,
) -> ArrayD<f32> {
    let layers: Vec<_> = (0..layers).map(|layer| array(cache.block::<D>(layer, site).unwrap())).collect();
    let views: Vec<_> = layers.iter().map(|layer| layer.view()).collect();
    ndarray::stack(Axis(0), &views).unwrap()
}

fn activations_match_transformers<B: Backend>() {
    // Folding the norms' gains keeps all these activations.
    for (_, processing) in processings() {
        for Case { name, model, pairs, results } in cases::<B>(processing) {
            let layers = model.config().n_layers;
            for (run, prompts) in [("clean", pairs.clean()), ("corrupted", pairs.corrupted())] {
                let (logits, cache) = model.run_with_cache(model.tokens(&prompts).unwrap()).unwrap();
                let first = |values: ArrayD<f32>| values.index_axis_move(Axis(1), 0);
                let mut resid = stacked::<B, 3>(&cache, Site::ResidPre, layers);
                let last = array(cache.block::<3>(layers - 1, Site::ResidPost).unwrap()).insert_axis(Axis(0));
                if results.get("fwd/clean/resid_pre").is_some_and(|table| table.shape()[0] > layers) {
                    resid = ndarray::concatenate(Axis(0), &[resid.view(), last.view()]).unwrap();
                }
                let z = stacked::<B, 4>(&cache, Site::Z, layers);
                let found = [
                    ("logits", array(logits)),
                    ("head_z_row0", first(z.clone())),
                    ("head_z", z),
                    ("resid_pre_row0", first(resid.clone())),
                    ("resid_pre", resid),
                    ("pattern_row0", first(stacked::<B, 4>(&cache, Site::Pattern, layers))),
                ];
                // Folding value biases changes z. They include the folded bias of a layer norm.
                let has_value_biases = model.config().attention_bias || model.config().norm == NormKind::Layer;
                let compared = found.iter().filter(|(table, _)| {
                    !(table.starts_with("head_z") && processing.fold_value_biases && has_value_biases)
                });
                for (table, found) in compared {
                    let Some(expected) = results.get(&format!("fwd/{run}/{table}")) else { continue };
                    // In models with layer norm, processing centers residual streams and logits.
                    let is_centered = model.config().norm == NormKind::Layer
                        && match *table {
                            "logits" => processing.center_unembed,
                            _ => processing.center_writing_weights && table.starts_with("resid"),
                        };
                    let expected = if is_centered { centered(expected) } else { expected.clone() };
                    let found = if is_centered { centered(found) } else { found.clone() };
                    let difference = largest_difference(&found, &expected) / scale(&expected);
                    assert!(difference < ACTIVATION, "{name} {run} {table}: {difference:e} of the largest");
                }
            }
        }
    }
}

/// Returns the values minus their mean along the last axis.
fn centered(values: &ArrayD<f32>) -> ArrayD<f32> {
    let last = Axis(values.ndim() - 1);
    values - &values.mean_axis(last).unwrap().insert_axis(last)
}

/// Compares the tables of one method: `act/head_z`, `act_per_prompt/head_z@position` and so on.
fn assert_tables(
    case: &str,
    method: &str,
    results: &Arrays,
    mut effects: impl FnMut(NodeKind) -> ArrayD<f32>,
) -> usize {
    let mut compared = 0;
    for (table, expected) in results {
        let Some((of, kind)) = table.split_once('/') else { continue };
        let per_prompt = of.strip_suffix("_per_prompt");
        if per_prompt.unwrap_or(of) != method {
            continue;
        }
        let found = effects(kind.parse().unwrap());
        let found = if per_prompt.is_some() { found } else { found.mean_axis(Axis(0)).unwrap() };
        let difference = largest_difference(&found, expected);
        assert!(difference < EFFECT, "{case} {table}: {difference:e}");
        compared += 1;
    }
    compared
}

fn effects_match_hooks_in_transformers<B: Backend>() {
    for (_, processing) in processings() {
        for Case { name, model, pairs, results } in cases::<Autodiff<B>>(processing) {
            let metric = LogitDiff::new(&pairs);
            let question = Question::new(&pairs, &metric);
            let (to, execution) = (Direction::Denoising, Execution::default());
            let plain = model.valid();
            let compared = assert_tables(&name, "act", &results, |kind| {
                activation_patching(&plain, question, &[kind], to, &execution).unwrap().effects.remove(0).values
            });
            let estimated = assert_tables(&name, "attr", &results, |kind| {
                attribution_patching(&model, question, &[kind], to, &execution).unwrap().effects.remove(0).values
            });
            assert!(compared >= 8 && estimated >= 8, "{name}: only {compared} and {estimated} tables");
        }
    }
}

fn integrals_and_direct_contributions_match_transformers<B: Backend>() {
    let mut compared = 0;
    for (_, processing) in processings() {
        for Case { name, model, pairs, results } in cases::<Autodiff<B>>(processing) {
            let metric = LogitDiff::new(&pairs);
            let (question, execution) = (Question::new(&pairs, &metric), Execution::default());
            // The nodes of the tables, without refinement.
            let integral = IntegratedGradientsOptions { tolerance: f64::INFINITY, ..Default::default() };
            compared += assert_tables(&name, "ig", &results, |kind| {
                let found = integrated_gradients(&model, question, &[kind], &integral, &execution).unwrap();
                found.outcome.effects.into_iter().next().unwrap().values
            });
            // Folding value biases moves a part of the heads' outputs into the output bias.
            if processing.fold_value_biases && model.config().attention_bias {
                continue;
            }
            let plain = model.valid();
            compared += assert_tables(&name, "dla", &results, |kind| {
                let found = logit_attribution(&plain, &pairs, &[kind], FinalNormGain::Applied, &execution).unwrap();
                found.effects.into_iter().next().unwrap().values
            });
        }
    }
    assert!(compared >= 48, "only {compared} tables");
}

type B = burn::backend::Flex;

#[test]
fn keys_and_values_count_key_value_heads() {
    let config = TransformerConfig::tiny(Architecture::Llama);
    let model = Transformer::<B>::random(&config, 0, &Default::default());
    let mut recorder = Recorder::all();
    model.forward(Run::tokens(model.tokens(&[vec![3, 1, 4]]).unwrap()), &mut recorder).unwrap();
    let cache = recorder.into_cache();
    let dims = |site| cache.dims(HookPoint::block(1, site)).unwrap();
    for (site, heads) in [(Site::Q, 4), (Site::K, 2), (Site::V, 2), (Site::RotQ, 4), (Site::RotK, 2), (Site::Z, 4)] {
        assert_eq!(dims(site), [1, 3, heads, 8], "{}", site.name());
        assert_eq!(config.heads_at(site), heads);
    }
    // Neurons are the activated gate times the other factor.
    let [pre, factor, post] =
        [Site::MlpPre, Site::MlpPreLinear, Site::MlpPost].map(|site| array(cache.block::<3>(1, site).unwrap()));
    let expected = pre.mapv(|x| x / (1.0 + (-x).exp())) * factor;
    assert!(largest_difference(&post, &expected) < 1e-6 * scale(&expected).max(1.0));
}

#[test]
fn a_window_hides_all_but_the_last_keys() {
    let config = TransformerConfig::tiny(Architecture::Gemma2);
    let model = Transformer::<B>::random(&config, 0, &Default::default());
    let (_, cache) = model.run_with_cache(model.tokens(&[vec![3, 1, 4, 1, 5, 9]]).unwrap()).unwrap();
    for (layer, window) in [(0, 3), (1, 6)] {
        let pattern = array(cache.block::<4>(layer, Site::Pattern).unwrap());
        for (query, key) in (0..6).flat_map(|query| (0..6).map(move |key| (query, key))) {
            let is_seen = key <= query && key + window > query;
            assert_eq!(pattern[[0, 1, query, key]] > 0.0, is_seen, "layer {layer}: {query} to {key}");
        }
    }
}

#[test]
fn analyses_that_a_family_lacks_are_refused_by_name() {
    let pair = |clean: [u32; 3], corrupted: [u32; 3]| rewire_tasks::PromptPair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        answers: vec![7],
        wrong_answers: vec![8],
    };
    let pairs = PromptPairs::new(vec![pair([1, 2, 3], [1, 4, 3])]).unwrap();
    let metric = LogitDiff::new(&pairs);
    let model = |family| Transformer::<B>::random(&TransformerConfig::tiny(family), 0, &Default::default());
    let outside: rewire_analysis::node::Node = "head_k:L0H2".parse().unwrap();
    let refused = rewire_analysis::patching::patch_groups(
        &model(Architecture::Llama),
        Question::new(&pairs, &metric),
        &[vec![outside]],
        Direction::Denoising,
        &Execution::default(),
    );
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("head 2 is out of range"), "{said}");
}

#[test]
fn wrong_fields_of_each_family_are_refused_by_name() {
    let refused = |family: Architecture, field: &str, value: serde_json::Value| {
        let mut json = TransformerConfig::tiny(family).to_hugging_face();
        json[field] = value;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, json.to_string()).unwrap();
        TransformerConfig::from_file(&path).unwrap_err().to_string()
    };
    use serde_json::json;
    let yarn = json!({ "rope_type": "yarn", "factor": 2.0 });
    for (family, field, value, words) in [
        (Architecture::Llama, "rope_scaling", yarn.clone(), "`rope_scaling` has the type \"yarn\""),
        (
            Architecture::Llama,
            "rope_scaling",
            json!({ "rope_type": "llama3", "factor": 8.0 }),
            "lacks `low_freq_factor`",
        ),
        (Architecture::Llama, "num_key_value_heads", json!(3), "`num_key_value_heads` 3"),
        (Architecture::Llama, "head_dim", json!(7), "`head_dim`"),
        (Architecture::Llama, "hidden_act", json!("quick_gelu"), "`hidden_act` `quick_gelu`"),
        (Architecture::Mistral, "sliding_window", json!(0), "`sliding_window` is 0"),
        (Architecture::Qwen2, "layer_types", json!(["full_attention"]), "`layer_types`"),
        (Architecture::Qwen3, "layer_types", json!(["full_attention", "chunked_attention"]), "\"chunked_attention\""),
        (Architecture::Gemma2, "attn_logit_softcapping", json!(-1.0), "`attn_logit_softcapping`"),
        (Architecture::Gemma2, "use_bidirectional_attention", json!(true), "`use_bidirectional_attention` is true"),
        (Architecture::Gemma3, "attn_logit_softcapping", json!(50.0), "`attn_logit_softcapping` is 50.0"),
        (Architecture::Gemma3, "sliding_window", json!(null), "`sliding_window` is missing"),
        (Architecture::Gemma3, "rope_local_base_freq", json!(0), "`rope_local_base_freq` is 0"),
        (Architecture::Gemma3, "use_bidirectional_attention", json!(true), "`use_bidirectional_attention` is true"),
        (Architecture::Gemma3, "model_type", json!("gemma3n"), "`model_type` `gemma3n` is not supported"),
        (Architecture::Olmo2, "rope_scaling", yarn.clone(), "`rope_scaling` has the type \"yarn\""),
        (Architecture::SmolLm3, "no_rope_layers", json!([1]), "`no_rope_layers` is [1]"),
        (Architecture::Phi3, "rope_scaling", json!({ "type": "longrope" }), "`rope_scaling` has the type \"longrope\""),
        (Architecture::Phi3, "partial_rotary_factor", json!(0.75), "`partial_rotary_factor` is 0.75"),
        (Architecture::GptJ, "rotary_dim", json!(3), "`rotary_dim` is 3"),
        (Architecture::GptJ, "rotary_dim", json!(null), "`rotary_dim` is missing"),
        (Architecture::GptNeo, "attention_types", json!([[["global"], 1]]), "`attention_types` is"),
        (Architecture::GptNeo, "attention_types", json!([[["global", "sparse"], 1]]), "`attention_types` is"),
        (Architecture::GptNeo, "activation_function", json!("silu"), "`activation_function` `silu`"),
        (Architecture::Opt, "do_layer_norm_before", json!(false), "`do_layer_norm_before` is false"),
        (Architecture::Opt, "word_embed_proj_dim", json!(8), "`word_embed_proj_dim` is 8"),
        (Architecture::Opt, "layer_norm_elementwise_affine", json!(false), "`layer_norm_elementwise_affine` is false"),
    ] {
        let said = refused(family, field, value);
        assert!(said.contains(words), "{said}");
    }
}
