//! Names, layouts and configurations equal those that the models had in transformers.

use std::collections::BTreeMap;

use rewire_gguf::{Gguf, config_json, named_tensors};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::fixture;
use crate::writer::File;

const ARCHITECTURES: [&str; 5] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3"];

/// The tensors of a safetensors file whose names begin with `prefix`, without it: shapes and bits.
fn stored(bytes: &[u8], prefix: &str) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let bits = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensors = file.tensors().into_iter();
    let tensors = tensors.filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_owned(), view)));
    tensors
        .map(|(name, view)| (name, (view.shape().to_vec(), view.data().as_chunks().0.iter().map(bits).collect())))
        .collect()
}

fn named(file: &Gguf<'_>) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let tensors = named_tensors(file).unwrap();
    tensors.into_iter().map(|tensor| (tensor.name.clone(), (tensor.shape.clone(), bits(tensor.to_f32())))).collect()
}

#[test]
fn tensors_have_the_names_and_the_values_of_transformers() {
    let reference = std::fs::read(fixture("models.safetensors")).unwrap();
    for architecture in ARCHITECTURES {
        let path = fixture(&format!("{architecture}.gguf"));
        let bytes = std::fs::read(&path).unwrap();
        let found = named(&Gguf::read(&bytes, &path).unwrap());
        let expected = stored(&reference, &format!("{architecture}/"));
        assert!(expected.len() > 15, "{architecture}");
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{architecture}");
        for (name, tensor) in expected {
            assert_eq!(found[&name], tensor, "{architecture}, {name}");
        }
    }
}

#[test]
fn gpt2_tensors_are_those_of_its_safetensors_file() {
    let path = fixture("tiny-gpt2.gguf");
    let bytes = std::fs::read(&path).unwrap();
    let found = named(&Gguf::read(&bytes, &path).unwrap());
    let weights = std::fs::read(fixture("../tiny-gpt2/model/model.safetensors")).unwrap();
    let mut expected = stored(&weights, "transformer.");
    expected.retain(|name, _| !name.ends_with(".attn.bias") && !name.ends_with(".attn.masked_bias"));
    assert_eq!(found, expected);
}

#[test]
fn configurations_have_the_fields_that_the_models_had() {
    let configs: Value = serde_json::from_slice(&std::fs::read(fixture("configs.json")).unwrap()).unwrap();
    for architecture in ARCHITECTURES {
        let path = fixture(&format!("{architecture}.gguf"));
        let bytes = std::fs::read(&path).unwrap();
        let config = config_json(&Gguf::read(&bytes, &path).unwrap()).unwrap();
        for (field, expected) in configs[architecture].as_object().unwrap() {
            let found = &config[field];
            let equal = match (found.as_f64(), expected.as_f64()) {
                (Some(found), Some(expected)) => found == expected,
                _ => found == expected || (field == "rope_scaling" && rope(found) == rope(expected)),
            };
            assert!(equal, "{architecture}, {field}: {found} and {expected}");
        }
    }
}

/// The numbers and the type of a scaling of rotary angles.
fn rope(scaling: &Value) -> BTreeMap<&str, String> {
    let text = |value: &Value| value.as_f64().map_or_else(|| value.to_string(), |number| number.to_string());
    scaling.as_object().unwrap().iter().map(|(field, value)| (field.as_str(), text(value))).collect()
}

/// The metadata of a small Llama, and its embedding.
fn llama() -> File {
    let mut file = File::of("llama").with_tensor("token_embd.weight", &[8, 5]);
    for (key, value) in [
        ("block_count", 1_u32),
        ("context_length", 16),
        ("embedding_length", 8),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
    ] {
        file = file.with_u32(&format!("llama.{key}"), value);
    }
    file.with_f32("llama.attention.layer_norm_rms_epsilon", 1e-6)
}

fn refused(file: &File) -> String {
    let bytes = file.bytes();
    let file = crate::read(&bytes).unwrap();
    match config_json(&file) {
        Ok(config) => panic!("read as {config}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn missing_and_defaulted_fields_are_those_of_llama_cpp() {
    let bytes = llama().bytes();
    let config = config_json(&crate::read(&bytes).unwrap()).unwrap();
    assert_eq!(config["rope_theta"], 10_000.0);
    assert_eq!(config["num_key_value_heads"], 2);
    assert_eq!(config["head_dim"], 4);
    assert_eq!(config["rms_norm_eps"], 1e-6);
    assert_eq!(config["bos_token_id"], Value::Null);
    assert_eq!(config["tie_word_embeddings"], true);
    let bytes = llama().with_tensor("output.weight", &[8, 5]).with_u32("tokenizer.ggml.bos_token_id", 3).bytes();
    let config = config_json(&crate::read(&bytes).unwrap()).unwrap();
    assert_eq!(config["bos_token_id"], 3);
    assert_eq!(config["tie_word_embeddings"], false);
}

#[test]
fn keys_that_may_change_the_mathematics_are_refused_by_name() {
    let cases = [
        (llama().with_u32("llama.expert_count", 8), "model.gguf, key `llama.expert_count`: Rewire does not support it"),
        (llama().with_u32("llama.attention.sliding_window", 8), "key `llama.attention.sliding_window`"),
        (llama().with_u32("llama.rope.dimension_count", 2), "key `llama.rope.dimension_count`: it is 2, and"),
        (llama().with_text("llama.rope.scaling.type", "yarn"), "key `llama.rope.scaling.type`: it is \"yarn\""),
        (llama().with_text("general.type", "adapter"), "key `general.type`: the file holds \"adapter\""),
        (llama().with_u32("split.count", 3), "one of 3 parts; join them"),
        (llama().with_u32("general.quantization_version", 1), "key `general.quantization_version`: it is 1"),
        (llama().with_f32("llama.rope.freq_base", f32::NAN), "key `llama.rope.freq_base`: it is NaN"),
        (llama().with_text("llama.vocab_size", "5").with_u32("llama.x", 1), "key `llama.x`"),
        (
            llama().replacing_text("general.architecture", "phi3"),
            "\"phi3\" is not supported; Rewire reads gpt2, llama, qwen2, qwen3, gemma2, gemma3",
        ),
        (File::of("lama"), "did you mean `llama`?"),
        (File::of("llama"), "key `llama.block_count`: the metadata lacks it"),
    ];
    for (file, message) in cases {
        let refused = refused(&file);
        assert!(refused.contains(message), "{refused}");
    }
}

#[test]
fn rotary_divisors_that_no_supported_scaling_gives_are_refused() {
    let refused = refused(&llama().with_tensor("rope_freqs.weight", &[2]));
    assert!(refused.contains("tensor `rope_freqs.weight`: its numbers are not those of Llama 3's"), "{refused}");
}

#[test]
fn tensors_that_the_architecture_does_not_have_are_refused_by_name() {
    for name in ["blk.0.ffn_gate_inp.weight", "blk.00.attn_q.weight", "blk.0.attn_q", "blk..attn_q.weight", "x.weight"]
    {
        let bytes = llama().with_tensor(name, &[8, 8]).bytes();
        let refused = named_tensors(&crate::read(&bytes).unwrap()).unwrap_err().to_string();
        assert_eq!(refused, format!("model.gguf, tensor `{name}`: the architecture llama has no such tensor"));
    }
    let bytes = llama().with_tensor("blk.0.attn_q.weight", &[8, 6]).bytes();
    let refused = named_tensors(&crate::read(&bytes).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("its 6 rows are not an even number for each of 2 heads"), "{refused}");
}
