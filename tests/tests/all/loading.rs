//! Model directories that load, and the errors for those that do not.

use std::path::Path;

use burn::backend::Flex;
use rewire_model::{ModelError, ModelFiles, Run, SavedTensor, Transformer, tensors_to_save};
use rewire_tests::fixture::Fixture;
use rewire_tests::model_files::{Stored, Tensors, floats, halved, read, write};
use safetensors::tensor::Dtype;
use tempfile::TempDir;

/// Copies a fixture's model and changes its tensors.
fn changed(fixture: &Fixture, change: impl Fn(&mut Tensors)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = fixture.model_directory();
    std::fs::copy(source.join("config.json"), directory.path().join("config.json")).unwrap();
    let mut tensors = read(&source.join("model.safetensors"));
    change(&mut tensors);
    write(&directory.path().join("model.safetensors"), &tensors);
    directory
}

fn load(directory: &Path) -> Result<Transformer<Flex>, ModelError> {
    Transformer::load(&ModelFiles::directory(directory)?, &Default::default())
}

fn refusal(directory: &Path) -> ModelError {
    match load(directory) {
        Err(error) => error,
        Ok(_) => panic!("{} was not refused", directory.display()),
    }
}

/// Returns the name of a weight matrix, for either architecture.
fn a_matrix(tensors: &Tensors) -> String {
    tensors.keys().find(|n| n.contains("0.mlp") && n.ends_with("weight")).unwrap().clone()
}

#[test]
fn all_variants_of_hub_files_load() {
    for fixture in Fixture::all() {
        let expected = tensors_to_save(&load(&fixture.model_directory()).unwrap()).unwrap();
        let same = |directory: &TempDir| tensors_to_save(&load(directory.path()).unwrap()).unwrap() == expected;
        let buffer = |dtype, n: usize| Stored { dtype, shape: vec![1, 1, n], bytes: vec![1; n] };

        let buffers = changed(&fixture, |tensors| {
            for name in ["h.0.attn.bias", "gpt_neox.layers.0.attention.bias", "h.0.attn.masked_bias"] {
                tensors.insert(name.to_owned(), buffer(Dtype::U8, 4));
            }
            tensors.insert("gpt_neox.layers.1.attention.bias".to_owned(), buffer(Dtype::BOOL, 4));
            let inv_freq = Stored { dtype: Dtype::F32, shape: vec![1], bytes: vec![0, 0, 0, 0] };
            tensors.insert("gpt_neox.layers.0.attention.rotary_emb.inv_freq".to_owned(), inv_freq);
        });
        assert!(same(&buffers), "{}: buffers changed the model", fixture.name);

        let renamed = changed(&fixture, |tensors| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, stored)| match name.strip_prefix("transformer.") {
                    Some(bare) => (bare.to_owned(), stored),
                    None if name.contains("gpt_neox") || name == "embed_out.weight" => (name, stored),
                    None => (format!("transformer.{name}"), stored),
                })
                .collect();
        });
        assert!(same(&renamed), "{}: the prefix changed the model", fixture.name);
    }
}

#[test]
fn half_precision_weights_load_as_their_float32_values() {
    for fixture in Fixture::all() {
        let exact = read(&fixture.model_directory().join("model.safetensors"));
        let expected = tensors_to_save(&load(&fixture.model_directory()).unwrap()).unwrap();
        for (dtype, precision) in [(Dtype::F16, 1e-3), (Dtype::BF16, 1e-2)] {
            let directory = changed(&fixture, |tensors| {
                for stored in tensors.values_mut().filter(|s| s.dtype == Dtype::F32) {
                    *stored = halved(stored, dtype);
                }
            });
            let loaded = tensors_to_save(&load(directory.path()).unwrap()).unwrap();
            for ((name, _, half), (_, _, full)) in loaded.iter().zip(&expected) {
                let close = half.iter().zip(full).all(|(h, f)| (h - f).abs() <= precision * f.abs() + 1e-6);
                assert!(close, "{}: {name} as {dtype:?}", fixture.name);
            }
            assert_ne!(loaded, expected, "nothing was rounded");
        }
        assert!(exact.values().any(|s| s.dtype == Dtype::F32 && floats(s).len() > 1));
    }
}

#[test]
fn sharded_weights_load_like_one_file() {
    for fixture in Fixture::all() {
        let expected = tensors_to_save(&load(&fixture.model_directory()).unwrap()).unwrap();
        let directory = changed(&fixture, |_| {});
        let whole = directory.path().join("model.safetensors");
        let tensors = read(&whole);
        std::fs::remove_file(&whole).unwrap();
        let shard = |i: usize| format!("model-0000{}-of-00002.safetensors", i + 1);
        let mut map = serde_json::Map::new();
        let mut halves = [Tensors::new(), Tensors::new()];
        for (i, (name, stored)) in tensors.into_iter().enumerate() {
            map.insert(name.clone(), shard(i % 2).into());
            halves[i % 2].insert(name, stored);
        }
        for (i, half) in halves.iter().enumerate() {
            write(&directory.path().join(shard(i)), half);
        }
        let index = directory.path().join("model.safetensors.index.json");
        std::fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
        assert_eq!(tensors_to_save(&load(directory.path()).unwrap()).unwrap(), expected, "{}", fixture.name);

        std::fs::remove_file(directory.path().join(shard(1))).unwrap();
        assert!(matches!(refusal(directory.path()), ModelError::MissingFile { file, .. } if file == shard(1)));
        std::fs::write(&index, r#"{"weight_map": {"a": "../outside.safetensors"}}"#).unwrap();
        assert!(matches!(refusal(directory.path()), ModelError::Config { .. }));
        std::fs::write(&index, "{}").unwrap();
        assert!(matches!(refusal(directory.path()), ModelError::Config { .. }));
    }
}

#[test]
fn damaged_weights_are_refused_by_file_and_tensor() {
    for fixture in Fixture::all() {
        let name = a_matrix(&read(&fixture.model_directory().join("model.safetensors")));
        let short = name.strip_prefix("transformer.").unwrap_or(&name);
        let refused = |change: &dyn Fn(&mut Tensors)| refusal(changed(&fixture, change).path());
        let with = |edit: &dyn Fn(&mut Stored)| refused(&|tensors| edit(tensors.get_mut(&name).unwrap()));

        let missing = refused(&|tensors| drop(tensors.remove(&name)));
        assert!(matches!(&missing, ModelError::MissingTensor { tensor, .. } if tensor == short), "{missing}");
        let extra = refused(&|tensors| {
            let copy = tensors[&name].clone();
            tensors.insert("h.99.extra".to_owned(), copy);
        });
        assert!(matches!(&extra, ModelError::UnexpectedTensor { tensor, .. } if tensor == "h.99.extra"), "{extra}");
        let misshapen = with(&|s| s.shape.reverse());
        assert!(matches!(&misshapen, ModelError::TensorShape { tensor, .. } if tensor == short), "{misshapen}");
        let not_a_number = with(&|s| s.bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes()));
        assert!(matches!(&not_a_number, ModelError::NotFinite { index: 2, .. }), "{not_a_number}");
        let infinite = with(&|s| s.bytes[0..4].copy_from_slice(&f32::INFINITY.to_le_bytes()));
        assert!(matches!(&infinite, ModelError::NotFinite { index: 0, .. }), "{infinite}");
        let integers = with(&|s| s.dtype = Dtype::I32);
        assert!(matches!(&integers, ModelError::TensorType { dtype, .. } if dtype == "I32"), "{integers}");
        for error in [missing, extra, misshapen, not_a_number, infinite, integers] {
            assert!(error.to_string().contains("model.safetensors"), "{error}");
        }
    }
}

#[test]
fn truncated_files_are_refused() {
    let fixture = &Fixture::all()[0];
    for keep in [0, 4, 100, 20_000] {
        let directory = changed(fixture, |_| {});
        let path = directory.path().join("model.safetensors");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..keep]).unwrap();
        let refused = refusal(directory.path());
        let has_kind = matches!(&refused, ModelError::Safetensors { .. } | ModelError::Read { .. });
        assert!(has_kind && refused.to_string().contains("model.safetensors"), "{keep} bytes: {refused}");
    }
    let directory = changed(fixture, |_| {});
    std::fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    assert!(matches!(refusal(directory.path()), ModelError::MissingFile { .. }));
}

#[test]
fn unsupported_configurations_are_refused_by_field() {
    let fixture = &Fixture::all()[0];
    let original = std::fs::read_to_string(fixture.model_directory().join("config.json")).unwrap();
    let original: serde_json::Value = serde_json::from_str(&original).unwrap();
    let refused = |text: &str| {
        let directory = changed(fixture, |_| {});
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        refusal(directory.path()).to_string()
    };
    let with = |field: &str, value: serde_json::Value| {
        let mut config = original.clone();
        config[field] = value;
        refused(&config.to_string())
    };
    assert!(refused("{").contains("malformed JSON"));
    assert!(refused("{}").contains("`model_type` is missing"));
    assert!(with("model_type", "bert".into()).contains("`bert` is not supported"));
    assert!(with("n_layer", (-1).into()).contains("`n_layer` is -1"));
    assert!(with("n_head", 0.into()).contains("`n_head` is 0"));
    assert!(with("n_head", 5.into()).contains("`n_embd` 32 is not a multiple of `n_head` 5"));
    assert!(with("activation_function", "swish".into()).contains("`swish` is not supported"));
    assert!(with("scale_attn_weights", false.into()).contains("`scale_attn_weights` is false"));
    // The weights have another size.
    assert!(with("n_layer", 9.into()).contains("lacks the tensor"));
    assert!(with("vocab_size", 99.into()).contains("config.json implies"));
}

/// Loads a directory, and returns its weights and warnings.
fn loaded(directory: &Path) -> (Vec<SavedTensor>, Vec<String>) {
    let files = ModelFiles::directory(directory).unwrap();
    let (model, warnings) = Transformer::<Flex>::load_with_warnings(&files, &Default::default()).unwrap();
    (tensors_to_save(&model).unwrap(), warnings.iter().map(ToString::to_string).collect())
}

/// Returns tensors with names that begin with `prefix`.
fn with_prefix(tensors: &mut Tensors, prefix: &str) {
    *tensors = std::mem::take(tensors).into_iter().map(|(name, stored)| (format!("{prefix}{name}"), stored)).collect();
}

#[test]
fn prefixes_of_wrapped_models_are_removed_with_a_warning() {
    for fixture in Fixture::all() {
        let (expected, warnings) = loaded(&fixture.model_directory());
        assert!(warnings.is_empty(), "{warnings:?}");
        for prefix in ["module.", "model."] {
            let directory = changed(&fixture, |tensors| with_prefix(tensors, prefix));
            let (weights, warnings) = loaded(directory.path());
            assert_eq!(weights, expected, "{}: {prefix}", fixture.name);
            let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
            assert!(warning.contains(&format!("all tensors begin with `{prefix}`")), "{warning}");
        }
        // Tensors with and without the prefix.
        let mixed = changed(&fixture, |tensors| {
            with_prefix(tensors, "module.");
            let any = tensors.values().next().unwrap().clone();
            tensors.insert("step".to_owned(), any);
        });
        let refused = refusal(mixed.path()).to_string();
        assert!(refused.contains("and has `module.") && refused.contains("remove the prefix `module.`"), "{refused}");
        let other = changed(&fixture, |tensors| with_prefix(tensors, "net."));
        let refused = refusal(other.path()).to_string();
        assert!(refused.contains("lacks the tensor `") && refused.contains("remove the prefix `net.`"), "{refused}");
        let doubled = changed(&fixture, |tensors| with_prefix(tensors, "transformer.transformer."));
        let refused = refusal(doubled.path()).to_string();
        assert!(refused.contains("remove the prefix `transformer."), "{refused}");
    }
}

#[test]
fn a_tied_unembedding_that_differs_is_ignored_with_a_warning() {
    let fixtures = Fixture::all();
    let gpt2 = fixtures.iter().find(|fixture| fixture.name == "tiny-gpt2").unwrap();
    let (expected, _) = loaded(&gpt2.model_directory());
    let with = |change: &dyn Fn(&mut Stored)| {
        let directory = changed(gpt2, |tensors| {
            let mut unembedding = tensors["transformer.wte.weight"].clone();
            change(&mut unembedding);
            tensors.insert("lm_head.weight".to_owned(), unembedding);
        });
        let (weights, warnings) = loaded(directory.path());
        assert_eq!(weights, expected, "the unembedding was not ignored");
        warnings
    };
    assert!(with(&|_| ()).is_empty(), "a warning about an equal unembedding");
    let first = floats(&read(&gpt2.model_directory().join("model.safetensors"))["transformer.wte.weight"])[0];
    let raised = first + 2.0;
    let different = with(&|stored| stored.bytes[..4].copy_from_slice(&raised.to_le_bytes()));
    let largest = format!("largest difference is {};", (raised - first).abs());
    let words = ["model.safetensors: the tensor `lm_head.weight` is ignored", "`wte.weight`", &largest];
    let [warning] = different.as_slice() else { panic!("{different:?}") };
    for word in words.into_iter().chain(["`tie_word_embeddings` to false"]) {
        assert!(warning.contains(word), "{word} is not in {warning}");
    }
    let reshaped = with(&|stored| stored.shape.reverse());
    assert!(reshaped[0].contains("another shape or type"), "{reshaped:?}");
    let not_a_number = with(&|stored| stored.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert!(not_a_number[0].contains("largest difference is inf"), "{not_a_number:?}");
}

#[test]
fn neox_without_attention_biases_has_zeros_and_saves_none() {
    let fixtures = Fixture::all();
    let neox = fixtures.iter().find(|fixture| fixture.name == "tiny-neox").unwrap();
    let is_bias = |name: &str| name.contains(".attention.") && name.ends_with(".bias");
    let unbiased = changed(neox, |tensors| tensors.retain(|name, _| !is_bias(name)));
    let mut zeros: Tensors = read(&neox.model_directory().join("model.safetensors"));
    zeros.iter_mut().filter(|(name, _)| is_bias(name)).for_each(|(_, stored)| stored.bytes.fill(0));
    let zeros = changed(neox, |tensors| *tensors = zeros.clone());
    let path = unbiased.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["attention_bias"] = false.into();
    std::fs::write(&path, config.to_string()).unwrap();

    let [model, with_zeros] = [&unbiased, &zeros].map(|directory| load(directory.path()).unwrap());
    let logits = |model: &Transformer<Flex>| {
        let tokens = model.tokens(&[vec![3, 1, 4, 1, 5]]).unwrap();
        model.forward(Run::tokens(tokens), ()).unwrap().into_data()
    };
    assert_eq!(logits(&model), logits(&with_zeros));

    let saved = tempfile::tempdir().unwrap();
    model.save(&saved.path().join("model")).unwrap();
    let names = read(&saved.path().join("model/model.safetensors"));
    assert!(!names.keys().any(|name| is_bias(name)), "biases were saved");
    let again = load(&saved.path().join("model")).unwrap();
    assert_eq!(again.config(), model.config());
    assert_eq!(logits(&again), logits(&model));

    // Biases that the configuration denies.
    std::fs::copy(neox.model_directory().join("model.safetensors"), unbiased.path().join("model.safetensors")).unwrap();
    let refused = refusal(unbiased.path());
    assert!(matches!(&refused, ModelError::UnexpectedTensor { tensor, .. } if is_bias(tensor)), "{refused}");
}

/// A run that started with one version of a model must not continue with another.
#[test]
fn rewritten_weights_have_another_version() {
    let fixture = &Fixture::all()[0];
    let directory = changed(fixture, |_| ());
    let versions = || ModelFiles::directory(directory.path()).unwrap().versions().unwrap();
    let before = versions();
    assert_eq!(before.len(), 2);
    assert_eq!(before, versions());
    let path = directory.path().join("model.safetensors");
    let mut weights = std::fs::read(&path).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(&path, weights).unwrap();
    let after = versions();
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1], "a file of the same length");
}
