//! GPT-2: sequential blocks, learned positions, layer norm, an unembedding tied to the embedding.

use serde_json::{Value, json};

use crate::config::{Activation, Architecture, TransformerConfig};
use crate::families::family::{Family, Gains, Orientation, QkvRows};
use crate::files::fields::{Fields, name_of};
use crate::weights::weight_name::WeightName;

/// `bos_token_id` if the file lacks it, as in transformers.
const BOS: u32 = 50_256;

pub(crate) const GPT2: Family = Family {
    architecture: Architecture::Gpt2,
    model_type: "gpt2",
    read,
    write,
    tensors: &[
        (WeightName::WE, &["wte.weight"]),
        (WeightName::WPos, &["wpe.weight"]),
        (WeightName::Ln1Gain, &["h.L.ln_1.weight"]),
        (WeightName::Ln1Bias, &["h.L.ln_1.bias"]),
        (WeightName::WQkv, &["h.L.attn.c_attn.weight"]),
        (WeightName::BQkv, &["h.L.attn.c_attn.bias"]),
        (WeightName::WO, &["h.L.attn.c_proj.weight"]),
        (WeightName::BO, &["h.L.attn.c_proj.bias"]),
        (WeightName::Ln2Gain, &["h.L.ln_2.weight"]),
        (WeightName::Ln2Bias, &["h.L.ln_2.bias"]),
        (WeightName::WIn, &["h.L.mlp.c_fc.weight"]),
        (WeightName::BIn, &["h.L.mlp.c_fc.bias"]),
        (WeightName::WOut, &["h.L.mlp.c_proj.weight"]),
        (WeightName::BOut, &["h.L.mlp.c_proj.bias"]),
        (WeightName::FinalGain, &["ln_f.weight"]),
        (WeightName::FinalBias, &["ln_f.bias"]),
        (WeightName::WU, &["lm_head.weight"]),
    ],
    shared_tensors: &[],
    linear: Orientation::InOut,
    qkv: QkvRows::ByInput,
    gains: Gains::Whole,
    unused_positions: 0,
    wrapper: None,
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    // `reorder_and_upcast_attn` is not read: with it, transformers computes scores in float32
    // and divides before the matmul. In float32, that changes only the rounding.
    for (field, needed) in [("scale_attn_weights", true), ("add_cross_attention", false)] {
        fields.needs(field, needed)?;
    }
    // transformers has two names for each of these sizes.
    let n_layers = fields.size(&["n_layer", "num_hidden_layers"])?;
    let n_heads = fields.size(&["n_head", "num_attention_heads"])?;
    let d_model = fields.size(&["n_embd", "hidden_size"])?;
    let n_ctx = fields.size(&["n_positions", "max_position_embeddings"])?;
    fields.check_heads(n_heads, d_model, ["n_head", "n_embd"])?;
    Ok(TransformerConfig {
        d_mlp: fields.optional_size("n_inner")?.unwrap_or(4 * d_model),
        activation: fields.activation("activation_function", Activation::GeluNew, &Activation::UNGATED)?,
        norm_eps: fields.positive("layer_norm_epsilon", 1e-5)?,
        scores_by_inverse_layer: match fields.0.get("scale_attn_by_inverse_layer_idx") {
            // As in Python, null counts as false.
            Some(Value::Null) => false,
            _ => fields.flag("scale_attn_by_inverse_layer_idx", false)?,
        },
        tied_unembedding: fields.flag("tie_word_embeddings", true)?,
        bos_token: fields.bos_token(BOS)?,
        ..TransformerConfig::gpt2(n_layers, n_heads, d_model, fields.size(&["vocab_size"])?, n_ctx)
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "n_layer": config.n_layers, "n_head": config.n_heads, "n_embd": config.d_model, "n_inner": config.d_mlp,
        "n_ctx": config.n_ctx, "n_positions": config.n_ctx, "vocab_size": config.d_vocab,
        "activation_function": name_of(config.activation), "layer_norm_epsilon": config.norm_eps,
        "bos_token_id": config.bos_token, "eos_token_id": config.bos_token,
        "tie_word_embeddings": config.tied_unembedding,
    });
    if config.scores_by_inverse_layer {
        json["scale_attn_by_inverse_layer_idx"] = true.into();
    }
    json
}
