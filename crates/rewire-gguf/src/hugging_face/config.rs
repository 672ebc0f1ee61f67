//! The `config.json` of a file's model, from its metadata and the shapes of its tensors.

use serde_json::{Value, json};

use crate::error::GgufError;
use crate::hugging_face::architecture::Architecture;
use crate::hugging_face::fields::Fields;
use crate::hugging_face::rope::rope_scaling;
use crate::read::file::Gguf;

/// The base of the rotary angles if the file has none, as in llama.cpp.
const ROPE_BASE: f64 = 10_000.0;

/// Returns the fields of the Hugging Face `config.json` that describes the model.
///
/// Fields that the file does not have are those that llama.cpp assumes. The BOS token is null if
/// the file says that none is put in front of text (`tokenizer.ggml.add_bos_token`).
///
/// # Errors
/// [`GgufError`] if the architecture is not supported, a key is missing or has a wrong value, or a
/// key may change the mathematics and is not supported.
pub fn config_json(file: &Gguf<'_>) -> Result<Value, GgufError> {
    let architecture = Architecture::of(file)?;
    let fields = Fields::new(file, architecture)?;
    let mut config = match architecture {
        Architecture::Gpt2 => gpt2(&fields)?,
        Architecture::Llama => llama(&fields)?,
        Architecture::Qwen2 => qwen2(&fields)?,
        Architecture::Qwen3 => qwen3(&fields)?,
        Architecture::Gemma2 => gemma2(&fields)?,
        Architecture::Gemma3 => gemma3(&fields)?,
    };
    config["bos_token_id"] = fields.special_token("bos")?;
    config["eos_token_id"] = fields.special_token("eos")?;
    // A file without an unembedding uses the embedding.
    config["tie_word_embeddings"] = (!fields.has("output.weight")).into();
    Ok(config)
}

fn gpt2(fields: &Fields<'_, '_>) -> Result<Value, GgufError> {
    let n_heads = fields.size("attention.head_count")?;
    if fields.n_key_value_heads()? != n_heads {
        return Err(fields.refuse("attention.head_count_kv", format!("it must be the number of heads, {n_heads}")));
    }
    Ok(json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "n_layer": fields.size("block_count")?, "n_head": n_heads, "n_embd": fields.size("embedding_length")?,
        "n_inner": fields.size("feed_forward_length")?, "n_positions": fields.size("context_length")?,
        "vocab_size": fields.rows("token_embd.weight")?, "activation_function": "gelu_new",
        "layer_norm_epsilon": fields.number("attention.layer_norm_epsilon")?,
    }))
}

/// Returns the fields that all models with rotary positions and RMS norms have.
fn rotary(fields: &Fields<'_, '_>, model_type: &str, class: &str) -> Result<Value, GgufError> {
    let mut config = json!({
        "architectures": [class], "model_type": model_type,
        "num_hidden_layers": fields.size("block_count")?, "num_attention_heads": fields.size("attention.head_count")?,
        "num_key_value_heads": fields.n_key_value_heads()?, "head_dim": fields.d_head()?,
        "hidden_size": fields.size("embedding_length")?, "intermediate_size": fields.size("feed_forward_length")?,
        "max_position_embeddings": fields.size("context_length")?, "vocab_size": fields.rows("token_embd.weight")?,
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon")?,
        "rope_theta": fields.optional_number("rope.freq_base")?.unwrap_or(ROPE_BASE),
    });
    if let Some(scaling) = rope_scaling(fields)? {
        config["rope_scaling"] = scaling;
    }
    Ok(config)
}

fn llama(fields: &Fields<'_, '_>) -> Result<Value, GgufError> {
    let mut config = rotary(fields, "llama", "LlamaForCausalLM")?;
    config["hidden_act"] = "silu".into();
    config["attention_bias"] = fields.has("blk.0.attn_q.bias").into();
    config["mlp_bias"] = fields.has("blk.0.ffn_up.bias").into();
    Ok(config)
}

fn qwen2(fields: &Fields<'_, '_>) -> Result<Value, GgufError> {
    let mut config = rotary(fields, "qwen2", "Qwen2ForCausalLM")?;
    config["hidden_act"] = "silu".into();
    config["use_sliding_window"] = false.into();
    Ok(config)
}

fn qwen3(fields: &Fields<'_, '_>) -> Result<Value, GgufError> {
    let mut config = rotary(fields, "qwen3", "Qwen3ForCausalLM")?;
    config["hidden_act"] = "silu".into();
    config["use_sliding_window"] = false.into();
    config["attention_bias"] = fields.has("blk.0.attn_q.bias").into();
    Ok(config)
}

fn gemma2(fields: &Fields<'_, '_>) -> Result<Value, GgufError> {
    let mut config = rotary(fields, "gemma2", "Gemma2ForCausalLM")?;
    config["hidden_activation"] = "gelu_pytorch_tanh".into();
    config["query_pre_attn_scalar"] = query_scale(fields, 46)?.into();
    // The defaults are those of llama.cpp and of transformers.
    config["sliding_window"] = fields.optional_size("attention.sliding_window")?.unwrap_or(4096).into();
    for (field, default) in [("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)] {
        config[field] = fields.optional_number(field)?.unwrap_or(default).into();
    }
    Ok(config)
}

fn gemma3(fields: &Fields<'_, '_>) -> Result<Value, GgufError> {
    let mut config = rotary(fields, "gemma3_text", "Gemma3ForCausalLM")?;
    config["hidden_activation"] = "gelu_pytorch_tanh".into();
    config["query_pre_attn_scalar"] = query_scale(fields, 62)?.into();
    config["sliding_window"] = fields.size("attention.sliding_window")?.into();
    config["rope_local_base_freq"] = fields.optional_number("rope.freq_base_swa")?.unwrap_or(ROPE_BASE).into();
    config["attn_logit_softcapping"] = Value::Null;
    config["final_logit_softcapping"] = fields.optional_number("final_logit_softcapping")?.into();
    let n_layers = fields.size("block_count")?;
    let slides = match fields.file.metadata().get(&fields.key("attention.sliding_window_pattern")) {
        Some(crate::read::value::Value::Array(_)) => sliding_layers(fields, n_layers)?,
        _ => {
            // One layer in six sees everything.
            let period = fields.optional_size("attention.sliding_window_pattern")?.unwrap_or(6);
            layers(fields, n_layers)?.map(|layer| !(layer + 1).is_multiple_of(period)).collect()
        }
    };
    let name = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
    config["layer_types"] = slides.iter().map(name).collect();
    Ok(config)
}

/// Returns the layers, if the file has at least one tensor for each of them.
fn layers(fields: &Fields<'_, '_>, n_layers: u64) -> Result<std::ops::Range<u64>, GgufError> {
    let tensors = fields.file.tensors().len();
    match n_layers <= tensors as u64 {
        true => Ok(0..n_layers),
        false => {
            Err(fields.refuse("block_count", format!("it is {n_layers}, and the file has only {tensors} tensors")))
        }
    }
}

/// Reads which layers have a window, one entry a layer.
fn sliding_layers(fields: &Fields<'_, '_>, n_layers: u64) -> Result<Vec<bool>, GgufError> {
    const FIELD: &str = "attention.sliding_window_pattern";
    let flags = fields.file.metadata().flags(&fields.key(FIELD))?.unwrap_or_default();
    match flags.len() as u64 == n_layers {
        true => Ok(flags),
        false => Err(fields.refuse(FIELD, format!("it has {} entries, and the model {n_layers} layers", flags.len()))),
    }
}

/// Returns the number under whose root attention scores are divided. Files do not have it: it is
/// the width of a head, and in the largest model, with `layers_of_largest` layers, the width of the
/// residual stream over the heads. llama.cpp has the same rule.
fn query_scale(fields: &Fields<'_, '_>, layers_of_largest: u64) -> Result<u64, GgufError> {
    match fields.size("block_count")? == layers_of_largest {
        true => Ok(fields.size("embedding_length")? / fields.size("attention.head_count")?),
        false => fields.d_head(),
    }
}
