//! OPT: sequential blocks, learned positions, layer norm before attention and MLP, ReLU.

use serde_json::{Value, json};

use crate::config::{Activation, Architecture, TransformerConfig};
use crate::families::family::{Family, Orientation};
use crate::families::gpt2::GPT2;
use crate::files::fields::{Fields, name_of};
use crate::weights::weight_name::WeightName;

/// `bos_token_id` if the file lacks it, as in transformers.
const BOS: u32 = 2;

/// The first positions of the embedding, which belong to padding.
const UNUSED_POSITIONS: usize = 2;

pub(crate) const OPT: Family = Family {
    architecture: Architecture::Opt,
    model_type: "opt",
    read,
    write,
    tensors: &[
        (WeightName::WE, &["decoder.embed_tokens.weight"]),
        (WeightName::WPos, &["decoder.embed_positions.weight"]),
        (WeightName::Ln1Gain, &["decoder.layers.L.self_attn_layer_norm.weight"]),
        (WeightName::Ln1Bias, &["decoder.layers.L.self_attn_layer_norm.bias"]),
        (
            WeightName::WQkv,
            &[
                "decoder.layers.L.self_attn.q_proj.weight",
                "decoder.layers.L.self_attn.k_proj.weight",
                "decoder.layers.L.self_attn.v_proj.weight",
            ],
        ),
        (
            WeightName::BQkv,
            &[
                "decoder.layers.L.self_attn.q_proj.bias",
                "decoder.layers.L.self_attn.k_proj.bias",
                "decoder.layers.L.self_attn.v_proj.bias",
            ],
        ),
        (WeightName::WO, &["decoder.layers.L.self_attn.out_proj.weight"]),
        (WeightName::BO, &["decoder.layers.L.self_attn.out_proj.bias"]),
        (WeightName::Ln2Gain, &["decoder.layers.L.final_layer_norm.weight"]),
        (WeightName::Ln2Bias, &["decoder.layers.L.final_layer_norm.bias"]),
        (WeightName::WIn, &["decoder.layers.L.fc1.weight"]),
        (WeightName::BIn, &["decoder.layers.L.fc1.bias"]),
        (WeightName::WOut, &["decoder.layers.L.fc2.weight"]),
        (WeightName::BOut, &["decoder.layers.L.fc2.bias"]),
        (WeightName::FinalGain, &["decoder.final_layer_norm.weight"]),
        (WeightName::FinalBias, &["decoder.final_layer_norm.bias"]),
        (WeightName::WU, &["lm_head.weight"]),
    ],
    linear: Orientation::OutIn,
    unused_positions: UNUSED_POSITIONS,
    wrapper: None,
    ..GPT2
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    for (field, needed) in
        [("do_layer_norm_before", true), ("_remove_final_layer_norm", false), ("layer_norm_elementwise_affine", true)]
    {
        fields.needs(field, needed)?;
    }
    let n_layers = fields.size(&["num_hidden_layers"])?;
    let n_heads = fields.size(&["num_attention_heads"])?;
    let d_model = fields.size(&["hidden_size"])?;
    fields.check_heads(n_heads, d_model, ["num_attention_heads", "hidden_size"])?;
    if let Some(width) = fields.optional_size("word_embed_proj_dim")?.filter(|width| *width != d_model) {
        return Err(format!("`word_embed_proj_dim` is {width}; Rewire supports only `hidden_size`, {d_model}"));
    }
    let (d_vocab, n_ctx) = (fields.size(&["vocab_size"])?, fields.size(&["max_position_embeddings"])?);
    let has_biases = fields.flag("enable_bias", true)?;
    Ok(TransformerConfig {
        architecture: Architecture::Opt,
        d_mlp: fields.size(&["ffn_dim"])?,
        activation: fields.activation("activation_function", Activation::Relu, &Activation::UNGATED)?,
        attention_bias: has_biases,
        mlp_bias: has_biases,
        tied_unembedding: fields.flag("tie_word_embeddings", true)?,
        bos_token: fields.bos_token(BOS)?,
        ..TransformerConfig::gpt2(n_layers, n_heads, d_model, d_vocab, n_ctx)
    })
}

fn write(config: &TransformerConfig) -> Value {
    json!({
        "architectures": ["OPTForCausalLM"], "model_type": "opt",
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "hidden_size": config.d_model, "word_embed_proj_dim": config.d_model, "ffn_dim": config.d_mlp,
        "max_position_embeddings": config.n_ctx, "vocab_size": config.d_vocab,
        "activation_function": name_of(config.activation), "enable_bias": config.attention_bias,
        "do_layer_norm_before": true,
        "bos_token_id": config.bos_token, "eos_token_id": config.bos_token,
        "tie_word_embeddings": config.tied_unembedding,
    })
}
