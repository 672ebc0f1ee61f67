//! Writes a GPT-2 in Hugging Face layout as a GGUF file, as llama.cpp's converter does.

use std::path::Path;

use serde_json::Value;

use crate::gguf_file::File;
use crate::model_files::{self, Stored};

/// The keys of the sizes, and the fields of `config.json`.
const SIZES: [(&str, &str); 5] = [
    ("gpt2.block_count", "n_layer"),
    ("gpt2.context_length", "n_positions"),
    ("gpt2.embedding_length", "n_embd"),
    ("gpt2.feed_forward_length", "n_inner"),
    ("gpt2.attention.head_count", "n_head"),
];

/// Parts of the names of tensors, in transformers and in GGUF.
const NAMES: [(&str, &str); 10] = [
    ("wte.", "token_embd."),
    ("wpe.", "position_embd."),
    ("ln_f.", "output_norm."),
    ("h.", "blk."),
    ("ln_1.", "attn_norm."),
    ("ln_2.", "ffn_norm."),
    ("attn.c_attn.", "attn_qkv."),
    ("attn.c_proj.", "attn_output."),
    ("mlp.c_fc.", "ffn_up."),
    ("mlp.c_proj.", "ffn_down."),
];

/// Returns a file with the model in a directory: `config.json`, `model.safetensors` in float32, and
/// `tokenizer.json`.
///
/// # Panics
/// If the directory holds no such model.
pub fn gpt2(directory: &Path) -> File {
    let json = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(directory.join(name)).expect("a model's file")).expect("JSON")
    };
    let config = json("config.json");
    let number = |field: &str| config[field].as_f64().expect("a number");
    let mut file = File::of("gpt2");
    for (key, field) in SIZES {
        file = file.with_u32(key, number(field) as u32);
    }
    file = file
        .with_f32("gpt2.attention.layer_norm_epsilon", number("layer_norm_epsilon") as f32)
        .with_u32("tokenizer.ggml.bos_token_id", number("bos_token_id") as u32);
    file = with_tokenizer(file, &json("tokenizer.json"));
    for (name, tensor) in model_files::read(&directory.join("model.safetensors")) {
        file = with_tensor(file, &name, &tensor);
    }
    file
}

/// Adds a byte-level BPE. Its added tokens are marks.
fn with_tokenizer(file: File, json: &Value) -> File {
    let ids = json["model"]["vocab"].as_object().expect("a vocabulary");
    let mut tokens = vec![String::new(); ids.len()];
    for (token, id) in ids {
        tokens[id.as_u64().expect("an id") as usize] = token.clone();
    }
    let added = json["added_tokens"].as_array().expect("a list");
    let is_mark = |token: &String| added.iter().any(|mark| mark["content"].as_str() == Some(token));
    let types: Vec<i32> = tokens.iter().map(|token| if is_mark(token) { 3 } else { 1 }).collect();
    let merges = json["model"]["merges"].as_array().expect("a list").iter();
    let part = |part: &Value| part.as_str().expect("a token").to_owned();
    let merges: Vec<String> = merges.map(|pair| format!("{} {}", part(&pair[0]), part(&pair[1]))).collect();
    file.with_text("tokenizer.ggml.model", "gpt2")
        .with_text("tokenizer.ggml.pre", "gpt-2")
        .with_texts("tokenizer.ggml.tokens", &tokens)
        .with_i32s("tokenizer.ggml.token_type", &types)
        .with_texts("tokenizer.ggml.merges", &merges)
}

/// Adds a tensor by its name in transformers. Linear weights are transposed.
fn with_tensor(file: File, name: &str, tensor: &Stored) -> File {
    let stored = NAMES
        .iter()
        .fold(format!(".{name}"), |name, (theirs, ours)| name.replacen(&format!(".{theirs}"), &format!(".{ours}"), 1));
    let values = model_files::floats(tensor);
    let sizes: Vec<u64> = tensor.shape.iter().map(|size| *size as u64).collect();
    let stored = &stored[1..];
    match (sizes.as_slice(), name.contains(".c_")) {
        (&[rows, columns], true) => {
            let at = |column: u64, row: u64| values[(row * columns + column) as usize];
            let transposed: Vec<f32> = (0..columns).flat_map(|c| (0..rows).map(move |r| at(c, r))).collect();
            file.with_values(stored, &[rows, columns], &transposed)
        }
        (sizes, _) => {
            let reversed: Vec<u64> = sizes.iter().rev().copied().collect();
            file.with_values(stored, &reversed, &values)
        }
    }
}
