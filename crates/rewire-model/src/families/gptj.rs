//! GPT-J: parallel blocks whose attention and MLP read the same norm, rotary positions in adjacent
//! pairs, an untied unembedding with a bias.

use serde_json::{Value, json};

use crate::config::{Activation, Architecture, Positions, TransformerConfig};
use crate::families::family::{Family, Orientation};
use crate::families::gpt2::GPT2;
use crate::files::fields::{Fields, name_of};
use crate::weights::weight_name::WeightName;

// What transformers takes for fields that the file lacks.
const BOS: u32 = 50_256;
const ROTARY_DIM: usize = 64;

/// The base of the rotary angles, which no field changes.
const BASE: f64 = 10_000.0;

pub(crate) const GPTJ: Family = Family {
    architecture: Architecture::GptJ,
    model_type: "gptj",
    read,
    write,
    tensors: &[
        (WeightName::WE, &["wte.weight"]),
        (WeightName::Ln1Gain, &["h.L.ln_1.weight"]),
        (WeightName::Ln1Bias, &["h.L.ln_1.bias"]),
        (WeightName::WQkv, &["h.L.attn.q_proj.weight", "h.L.attn.k_proj.weight", "h.L.attn.v_proj.weight"]),
        (WeightName::WO, &["h.L.attn.out_proj.weight"]),
        (WeightName::WIn, &["h.L.mlp.fc_in.weight"]),
        (WeightName::BIn, &["h.L.mlp.fc_in.bias"]),
        (WeightName::WOut, &["h.L.mlp.fc_out.weight"]),
        (WeightName::BOut, &["h.L.mlp.fc_out.bias"]),
        (WeightName::FinalGain, &["ln_f.weight"]),
        (WeightName::FinalBias, &["ln_f.bias"]),
        (WeightName::WU, &["lm_head.weight"]),
        (WeightName::BU, &["lm_head.bias"]),
    ],
    linear: Orientation::OutIn,
    ..GPT2
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    // transformers has two names for each of these sizes.
    let n_layers = fields.size(&["n_layer", "num_hidden_layers"])?;
    let n_heads = fields.size(&["n_head", "num_attention_heads"])?;
    let d_model = fields.size(&["n_embd", "hidden_size"])?;
    let n_ctx = fields.size(&["n_positions", "max_position_embeddings"])?;
    fields.check_heads(n_heads, d_model, ["n_head", "n_embd"])?;
    let d_head = d_model / n_heads;
    let dims = match fields.0.contains_key("rotary_dim") {
        true => fields.size(&["rotary_dim"])?,
        false => ROTARY_DIM,
    };
    if dims > d_head || !dims.is_multiple_of(2) {
        return Err(format!("`rotary_dim` is {dims}; it must be even, and at most the width {d_head} of a head"));
    }
    Ok(TransformerConfig {
        d_mlp: fields.optional_size("n_inner")?.unwrap_or(4 * d_model),
        activation: fields.activation("activation_function", Activation::GeluNew, &Activation::UNGATED)?,
        norm_eps: fields.positive("layer_norm_epsilon", 1e-5)?,
        positions: Positions::Rotary { dims, base: BASE },
        tied_unembedding: fields.flag("tie_word_embeddings", false)?,
        bos_token: fields.bos_token(BOS)?,
        ..TransformerConfig::gptj(n_layers, n_heads, d_model, fields.size(&["vocab_size"])?, n_ctx)
    })
}

fn write(config: &TransformerConfig) -> Value {
    let dims = match config.positions {
        Positions::Rotary { dims, .. } => dims,
        Positions::Learned => 0,
    };
    json!({
        "architectures": ["GPTJForCausalLM"], "model_type": "gptj",
        "n_layer": config.n_layers, "n_head": config.n_heads, "n_embd": config.d_model, "n_inner": config.d_mlp,
        "n_positions": config.n_ctx, "vocab_size": config.d_vocab, "rotary_dim": dims,
        "activation_function": name_of(config.activation), "layer_norm_epsilon": config.norm_eps,
        "bos_token_id": config.bos_token, "eos_token_id": config.bos_token,
        "tie_word_embeddings": config.tied_unembedding,
    })
}
