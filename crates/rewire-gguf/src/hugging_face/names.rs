//! The names of tensors in GGUF files and in the files of transformers.
//!
//! | GGUF | GPT-2 | the others |
//! |---|---|---|
//! | `token_embd` | `wte` | `model.embed_tokens` |
//! | `position_embd` | `wpe` | none |
//! | `output_norm` | `ln_f` | `model.norm` |
//! | `output` | `lm_head` | `lm_head` |
//! | `blk.L.attn_norm` | `h.L.ln_1` | `model.layers.L.input_layernorm` |
//! | `blk.L.attn_qkv` | `h.L.attn.c_attn` | none |
//! | `blk.L.attn_q`, `_k`, `_v` | none | `model.layers.L.self_attn.q_proj`, .. |
//! | `blk.L.attn_q_norm`, .. | none | `model.layers.L.self_attn.q_norm`, .. (Qwen3, Gemma-3) |
//! | `blk.L.attn_output` | `h.L.attn.c_proj` | `model.layers.L.self_attn.o_proj` |
//! | `blk.L.post_attention_norm` | none | `model.layers.L.post_attention_layernorm` (Gemma) |
//! | `blk.L.ffn_norm` | `h.L.ln_2` | `model.layers.L.post_attention_layernorm` |
//! | `blk.L.ffn_norm` (Gemma) | none | `model.layers.L.pre_feedforward_layernorm` |
//! | `blk.L.ffn_gate` | none | `model.layers.L.mlp.gate_proj` |
//! | `blk.L.ffn_up` | `h.L.mlp.c_fc` | `model.layers.L.mlp.up_proj` |
//! | `blk.L.ffn_down` | `h.L.mlp.c_proj` | `model.layers.L.mlp.down_proj` |
//! | `blk.L.post_ffw_norm` | none | `model.layers.L.post_feedforward_layernorm` (Gemma) |
//!
//! All names continue with `.weight` or `.bias`.

use crate::hugging_face::architecture::Architecture;

/// Returns the name of a tensor in the files of transformers, or `None` if the architecture has no
/// such tensor.
pub(crate) fn hugging_face_name(architecture: Architecture, name: &str) -> Option<String> {
    let (path, kind) = name.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))?;
    let is_gpt2 = architecture == Architecture::Gpt2;
    let Some(inside) = path.strip_prefix("blk.") else {
        let outside = match (path, is_gpt2) {
            ("token_embd", true) => "wte",
            ("position_embd", true) => "wpe",
            ("output_norm", true) => "ln_f",
            ("token_embd", false) => "model.embed_tokens",
            ("output_norm", false) => "model.norm",
            ("output", _) => "lm_head",
            _ => return None,
        };
        return Some(format!("{outside}.{kind}"));
    };
    let (layer, part) = inside.split_once('.')?;
    // The number is written in one way, so that no two names become one.
    let layer = layer.parse::<u32>().ok().filter(|number| number.to_string() == layer)?;
    match is_gpt2 {
        true => Some(format!("h.{layer}.{}.{kind}", gpt2(part)?)),
        false => Some(format!("model.layers.{layer}.{}.{kind}", rotary(architecture, part)?)),
    }
}

fn gpt2(part: &str) -> Option<&'static str> {
    Some(match part {
        "attn_norm" => "ln_1",
        "attn_qkv" => "attn.c_attn",
        "attn_output" => "attn.c_proj",
        "ffn_norm" => "ln_2",
        "ffn_up" => "mlp.c_fc",
        "ffn_down" => "mlp.c_proj",
        _ => return None,
    })
}

fn rotary(architecture: Architecture, part: &str) -> Option<&'static str> {
    let is_gemma = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
    let has_head_norms = matches!(architecture, Architecture::Qwen3 | Architecture::Gemma3);
    Some(match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" if has_head_norms => "self_attn.q_norm",
        "attn_k_norm" if has_head_norms => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "post_attention_norm" if is_gemma => "post_attention_layernorm",
        "ffn_norm" if is_gemma => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "post_ffw_norm" if is_gemma => "post_feedforward_layernorm",
        _ => return None,
    })
}
