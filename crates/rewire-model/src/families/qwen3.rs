//! Qwen3: Llama with norms on the queries and keys of each head, and a width of heads of its own.

use serde_json::Value;

use crate::config::{Architecture, QueryKeyNorms, TransformerConfig};
use crate::families::family::Family;
use crate::families::llama::LLAMA;
use crate::families::llama_like::{self, Common};
use crate::families::qwen2::{read_window, write_window};
use crate::files::fields::Fields;

// What transformers takes for fields that the file lacks.
const HEAD_DIM: usize = 128;
const KEY_VALUE_HEADS: usize = 32;

pub(crate) const QWEN3: Family =
    Family { architecture: Architecture::Qwen3, model_type: "qwen3", read, write, ..LLAMA };

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let (key_value_heads, head_dim) = (Some(KEY_VALUE_HEADS), Some(HEAD_DIM));
    let common = Common { key_value_heads, head_dim, ..Common::of(Architecture::Qwen3) };
    let config = llama_like::read(fields, common)?;
    Ok(TransformerConfig {
        query_key_norms: QueryKeyNorms::EachHead,
        attention_bias: fields.flag("attention_bias", false)?,
        sliding_window: read_window(fields, config.n_layers)?,
        // As for Qwen2.
        bos_token: None,
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = llama_like::write(config, "Qwen3ForCausalLM");
    json["attention_bias"] = config.attention_bias.into();
    write_window(config, &mut json);
    json
}
