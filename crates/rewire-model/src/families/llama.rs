//! Llama 2 and 3, and SmolLM2: grouped-query attention, RMSNorm, a gated MLP, rotary positions on
//! the whole head. The biases of attention and MLP are options.

use serde_json::Value;

use crate::config::{Architecture, TransformerConfig};
use crate::families::family::{Family, Gains, Orientation, QkvRows};
use crate::families::llama_like::{self, Common, TENSORS};
use crate::files::fields::Fields;

/// `bos_token_id` if the file lacks it, as in transformers.
const BOS: u32 = 1;

pub(crate) const LLAMA: Family = Family {
    architecture: Architecture::Llama,
    model_type: "llama",
    read,
    write,
    tensors: &[],
    shared_tensors: TENSORS,
    linear: Orientation::OutIn,
    qkv: QkvRows::ByInput,
    gains: Gains::Whole,
    unused_positions: 0,
    wrapper: None,
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    // `pretraining_tp` is not read: with it, transformers computed the same sums in pieces.
    Ok(TransformerConfig {
        attention_bias: fields.flag("attention_bias", false)?,
        mlp_bias: fields.flag("mlp_bias", false)?,
        bos_token: fields.bos_token(BOS)?,
        ..llama_like::read(fields, Common::of(Architecture::Llama))?
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = llama_like::write(config, "LlamaForCausalLM");
    json["attention_bias"] = config.attention_bias.into();
    json["mlp_bias"] = config.mlp_bias.into();
    json
}
