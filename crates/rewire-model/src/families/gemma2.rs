//! Gemma-2: norms before and after attention and MLP with gains stored as `w - 1`, a scaled
//! embedding, soft caps on scores and logits, and a sliding window in every second layer.

use serde_json::{Value, json};

use crate::config::{Activation, Architecture, TransformerConfig};
use crate::families::family::{Family, Gains};
use crate::families::llama::LLAMA;
use crate::families::llama_like::{self, Common, POST_NORMS};
use crate::families::windows;
use crate::files::fields::{Fields, name_of};

// What transformers takes for fields that the file lacks.
const BOS: u32 = 2;
const WINDOW: usize = 4096;
const KEY_VALUE_HEADS: usize = 4;
const HEAD_DIM: usize = 256;
const SCORE_SCALAR: f64 = 256.0;
const SCORE_CAP: f64 = 50.0;
const LOGIT_CAP: f64 = 30.0;

pub(crate) const GEMMA2: Family = Family {
    architecture: Architecture::Gemma2,
    model_type: "gemma2",
    read,
    write,
    tensors: POST_NORMS,
    gains: Gains::FromOne,
    ..LLAMA
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let config = read_gemma(fields, Common::of(Architecture::Gemma2))?;
    let window = fields.size_or("sliding_window", WINDOW)?;
    Ok(TransformerConfig {
        score_cap: fields.optional_positive("attn_logit_softcapping", SCORE_CAP)?,
        logit_cap: fields.optional_positive("final_logit_softcapping", LOGIT_CAP)?,
        sliding_window: windows::read(fields, config.n_layers, window, |layer| layer % 2 == 0)?,
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = write_gemma(config, "Gemma2ForCausalLM");
    json["attn_logit_softcapping"] = json!(config.score_cap);
    json
}

/// Reads the fields that Gemma-2 and Gemma-3 share.
pub(crate) fn read_gemma(fields: &Fields<'_>, common: Common) -> Result<TransformerConfig, String> {
    fields.needs("use_bidirectional_attention", false)?;
    // transformers reads `hidden_activation` alone, and ignores `hidden_act`.
    let common = Common {
        key_value_heads: Some(KEY_VALUE_HEADS),
        head_dim: Some(HEAD_DIM),
        activation: ("hidden_activation", Activation::GeluNew),
        tied: true,
        ..common
    };
    let config = llama_like::read(fields, common)?;
    Ok(TransformerConfig {
        post_norms: true,
        embedding_scale: Some((config.d_model as f64).sqrt()),
        score_scalar: Some(fields.positive("query_pre_attn_scalar", SCORE_SCALAR)?),
        attention_bias: fields.flag("attention_bias", false)?,
        bos_token: fields.bos_token(BOS)?,
        ..config
    })
}

/// Writes the fields that Gemma-2 and Gemma-3 share.
pub(crate) fn write_gemma(config: &TransformerConfig, class: &str) -> Value {
    let mut json = llama_like::write(config, class);
    let window = config.sliding_window.as_ref();
    json["hidden_activation"] = name_of(config.activation).into();
    json["query_pre_attn_scalar"] = json!(config.score_scalar.unwrap_or(config.d_head as f64));
    json["final_logit_softcapping"] = json!(config.logit_cap);
    json["attention_bias"] = config.attention_bias.into();
    json["sliding_window"] = json!(window.map(|window| window.size));
    json["layer_types"] = windows::types(window, config.n_layers);
    json
}
