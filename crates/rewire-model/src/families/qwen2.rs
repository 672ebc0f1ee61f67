//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values. Later layers may have a
//! sliding window.

use serde_json::{Value, json};

use crate::config::{Architecture, SlidingWindow, TransformerConfig};
use crate::families::family::Family;
use crate::families::llama::LLAMA;
use crate::families::llama_like::{self, Common};
use crate::families::windows;
use crate::files::fields::Fields;

// What transformers takes for fields that the file lacks.
const WINDOW: usize = 4096;
const FULL_LAYERS: usize = 28;
const KEY_VALUE_HEADS: usize = 32;

pub(crate) const QWEN2: Family =
    Family { architecture: Architecture::Qwen2, model_type: "qwen2", read, write, ..LLAMA };

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let common = Common { key_value_heads: Some(KEY_VALUE_HEADS), ..Common::of(Architecture::Qwen2) };
    let config = llama_like::read(fields, common)?;
    Ok(TransformerConfig {
        attention_bias: true,
        attention_output_bias: false,
        sliding_window: read_window(fields, config.n_layers)?,
        // Qwen's tokenizers have no BOS; `bos_token_id` names a token that text never starts with.
        bos_token: None,
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = llama_like::write(config, "Qwen2ForCausalLM");
    write_window(config, &mut json);
    json
}

/// Reads the window of Qwen's models: `sliding_window` counts only with `use_sliding_window`, and
/// only in layers from `max_window_layers` on.
pub(crate) fn read_window(fields: &Fields<'_>, n_layers: usize) -> Result<Option<SlidingWindow>, String> {
    let given = fields.size_or("sliding_window", WINDOW)?;
    let size = if fields.flag("use_sliding_window", false)? { given } else { None };
    let full = fields.count("max_window_layers")?.unwrap_or(FULL_LAYERS);
    windows::read(fields, n_layers, size, |layer| layer >= full)
}

/// Writes what [`read_window`] reads back.
pub(crate) fn write_window(config: &TransformerConfig, json: &mut Value) {
    let window = config.sliding_window.as_ref();
    json["use_sliding_window"] = json!(window.is_some());
    json["sliding_window"] = json!(window.map(|window| window.size));
    json["max_window_layers"] = json!(config.n_layers);
    json["layer_types"] = windows::types(window, config.n_layers);
}
