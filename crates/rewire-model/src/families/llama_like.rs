//! What Llama and its variants share: the names of fields and tensors.

use serde_json::{Value, json};

use crate::config::{Activation, Architecture, TransformerConfig};
use crate::families::family::Tensors;
use crate::families::rope;
use crate::files::fields::{Fields, name_of};
use crate::weights::weight_name::WeightName;

/// The tensors of Llama and its variants. A model has those that its configuration implies.
pub(crate) const TENSORS: Tensors = &[
    (WeightName::WE, &["model.embed_tokens.weight"]),
    (WeightName::Ln1Gain, &["model.layers.L.input_layernorm.weight"]),
    (
        WeightName::WQkv,
        &[
            "model.layers.L.self_attn.q_proj.weight",
            "model.layers.L.self_attn.k_proj.weight",
            "model.layers.L.self_attn.v_proj.weight",
        ],
    ),
    (
        WeightName::BQkv,
        &[
            "model.layers.L.self_attn.q_proj.bias",
            "model.layers.L.self_attn.k_proj.bias",
            "model.layers.L.self_attn.v_proj.bias",
        ],
    ),
    (WeightName::QueryGain, &["model.layers.L.self_attn.q_norm.weight"]),
    (WeightName::KeyGain, &["model.layers.L.self_attn.k_norm.weight"]),
    (WeightName::WO, &["model.layers.L.self_attn.o_proj.weight"]),
    (WeightName::BO, &["model.layers.L.self_attn.o_proj.bias"]),
    (WeightName::Ln2Gain, &["model.layers.L.post_attention_layernorm.weight"]),
    (WeightName::WGate, &["model.layers.L.mlp.gate_proj.weight"]),
    (WeightName::BGate, &["model.layers.L.mlp.gate_proj.bias"]),
    (WeightName::WIn, &["model.layers.L.mlp.up_proj.weight"]),
    (WeightName::BIn, &["model.layers.L.mlp.up_proj.bias"]),
    (WeightName::WOut, &["model.layers.L.mlp.down_proj.weight"]),
    (WeightName::BOut, &["model.layers.L.mlp.down_proj.bias"]),
    (WeightName::FinalGain, &["model.norm.weight"]),
    (WeightName::WU, &["lm_head.weight"]),
];

/// The norms of the variants with norms after attention and MLP.
pub(crate) const POST_NORMS: Tensors = &[
    (WeightName::AfterAttentionGain, &["model.layers.L.post_attention_layernorm.weight"]),
    (WeightName::Ln2Gain, &["model.layers.L.pre_feedforward_layernorm.weight"]),
    (WeightName::AfterMlpGain, &["model.layers.L.post_feedforward_layernorm.weight"]),
];

/// What transformers takes for fields that a file of the family lacks.
pub(crate) struct Common {
    pub(crate) architecture: Architecture,
    /// Key/value heads; as many as attention heads if `None`.
    pub(crate) key_value_heads: Option<usize>,
    /// Width of a head; the width of the model over the number of heads if `None`.
    pub(crate) head_dim: Option<usize>,
    /// The field of the activation function, and its default.
    pub(crate) activation: (&'static str, Activation),
    pub(crate) norm_eps: f64,
    /// The base of rotary angles.
    pub(crate) rope_base: f64,
    pub(crate) tied: bool,
}

impl Common {
    /// Returns Llama's defaults, for this family.
    pub(crate) fn of(architecture: Architecture) -> Self {
        let activation = ("hidden_act", Activation::Silu);
        Self {
            architecture,
            key_value_heads: None,
            head_dim: None,
            activation,
            norm_eps: 1e-6,
            rope_base: 10_000.0,
            tied: false,
        }
    }
}

/// Reads the fields that the families share.
pub(crate) fn read(fields: &Fields<'_>, common: Common) -> Result<TransformerConfig, String> {
    fields.check_unmodified()?;
    let n_heads = fields.size(&["num_attention_heads"])?;
    let d_model = fields.size(&["hidden_size"])?;
    let (n_layers, d_vocab) = (fields.size(&["num_hidden_layers"])?, fields.size(&["vocab_size"])?);
    let n_ctx = fields.size(&["max_position_embeddings"])?;
    let default = if fields.0.contains_key("num_key_value_heads") { None } else { common.key_value_heads };
    let shared = fields.optional_size("num_key_value_heads")?.or(default).unwrap_or(n_heads);
    if !n_heads.is_multiple_of(shared) {
        return Err(format!("`num_attention_heads` {n_heads} is not a multiple of `num_key_value_heads` {shared}"));
    }
    let default = if fields.0.contains_key("head_dim") { None } else { common.head_dim };
    let d_head = match fields.optional_size("head_dim")?.or(default) {
        Some(d_head) => d_head,
        None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
        None => {
            return Err(format!(
                "`hidden_size` {d_model} is not a multiple of `num_attention_heads` {n_heads}, and `head_dim` is missing"
            ));
        }
    };
    if !d_head.is_multiple_of(2) {
        return Err(format!("a head has {d_head} dimensions (`head_dim`); rotary positions need an even number"));
    }
    let (positions, rotary_scaling) = rope::read(fields, d_head, common.rope_base)?;
    let (field, activation) = common.activation;
    Ok(TransformerConfig {
        architecture: common.architecture,
        key_value_heads: (shared != n_heads).then_some(shared),
        d_head,
        d_mlp: fields.size(&["intermediate_size"])?,
        activation: fields.activation(field, activation, &Activation::ALL)?,
        norm_eps: fields.positive("rms_norm_eps", common.norm_eps)?,
        positions,
        rotary_scaling,
        tied_unembedding: fields.flag("tie_word_embeddings", common.tied)?,
        ..TransformerConfig::llama(n_layers, n_heads, d_model, d_vocab, n_ctx)
    })
}

/// Returns the fields that [`read`] reads back. `class` is the model's class in transformers.
pub(crate) fn write(config: &TransformerConfig, class: &str) -> Value {
    let model_type = class.trim_end_matches("ForCausalLM").to_lowercase();
    let (base, scaling) = rope::write(config);
    json!({
        "architectures": [class], "model_type": model_type,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_key_value_heads(), "head_dim": config.d_head,
        "hidden_size": config.d_model, "intermediate_size": config.d_mlp,
        "max_position_embeddings": config.n_ctx, "vocab_size": config.d_vocab,
        "hidden_act": name_of(config.activation), "rms_norm_eps": config.norm_eps,
        "rope_theta": base, "rope_scaling": scaling,
        "bos_token_id": config.bos_token, "eos_token_id": config.bos_token,
        "tie_word_embeddings": config.tied_unembedding,
    })
}
