//! Mistral: Llama with a sliding window in every layer.

use serde_json::Value;

use crate::config::{Architecture, TransformerConfig};
use crate::families::family::Family;
use crate::families::llama::LLAMA;
use crate::families::llama_like::{self, Common};
use crate::families::windows;
use crate::files::fields::Fields;

// What transformers takes for fields that the file lacks.
const BOS: u32 = 1;
const WINDOW: usize = 4096;
const KEY_VALUE_HEADS: usize = 8;

pub(crate) const MISTRAL: Family =
    Family { architecture: Architecture::Mistral, model_type: "mistral", read, write, ..LLAMA };

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let common = Common { key_value_heads: Some(KEY_VALUE_HEADS), ..Common::of(Architecture::Mistral) };
    let config = llama_like::read(fields, common)?;
    // Null means no window.
    let size = fields.size_or("sliding_window", WINDOW)?;
    Ok(TransformerConfig {
        sliding_window: windows::in_layers(config.n_layers, size, |_| true)?,
        bos_token: fields.bos_token(BOS)?,
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = llama_like::write(config, "MistralForCausalLM");
    json["sliding_window"] = config.sliding_window.as_ref().map(|window| window.size).into();
    json
}
