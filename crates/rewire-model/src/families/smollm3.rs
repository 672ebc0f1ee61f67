//! SmolLM3: Llama without rotary positions in some layers, by default in every fourth. Those layers
//! may have a sliding window.

use serde_json::{Value, json};

use crate::config::{Architecture, TransformerConfig};
use crate::families::family::Family;
use crate::families::llama::LLAMA;
use crate::families::llama_like::{self, Common};
use crate::families::windows;
use crate::files::fields::{Fields, shown};

// What transformers takes for fields that the file lacks.
const BOS: u32 = 128_000;
const KEY_VALUE_HEADS: usize = 4;
const PERIOD: usize = 4;
const BASE: f64 = 2_000_000.0;

pub(crate) const SMOLLM3: Family =
    Family { architecture: Architecture::SmolLm3, model_type: "smollm3", read, write, ..LLAMA };

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let common = Common {
        key_value_heads: Some(KEY_VALUE_HEADS),
        rope_base: BASE,
        tied: true,
        ..Common::of(Architecture::SmolLm3)
    };
    let config = llama_like::read(fields, common)?;
    let unrotated_layers = unrotated(fields, config.n_layers)?;
    let given = fields.optional_size("sliding_window")?;
    let size = if fields.flag("use_sliding_window", false)? { given } else { None };
    let slides = |layer: usize| unrotated_layers.contains(&layer);
    Ok(TransformerConfig {
        attention_bias: fields.flag("attention_bias", false)?,
        mlp_bias: fields.flag("mlp_bias", false)?,
        sliding_window: windows::read(fields, config.n_layers, size, slides)?,
        bos_token: fields.bos_token(BOS)?,
        unrotated_layers,
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = llama_like::write(config, "SmolLM3ForCausalLM");
    let window = config.sliding_window.as_ref();
    let rotates = |layer: usize| u8::from(!config.unrotated_layers.contains(&layer));
    json["attention_bias"] = config.attention_bias.into();
    json["mlp_bias"] = config.mlp_bias.into();
    json["no_rope_layers"] = (0..config.n_layers).map(rotates).collect();
    json["use_sliding_window"] = json!(window.is_some());
    json["sliding_window"] = json!(window.map(|window| window.size));
    json["layer_types"] = windows::types(window, config.n_layers);
    json
}

/// Reads the layers without rotary positions: those with a 0 in `no_rope_layers` or, without that
/// field, every `no_rope_layer_interval`th.
fn unrotated(fields: &Fields<'_>, n_layers: usize) -> Result<Vec<usize>, String> {
    match fields.0.get("no_rope_layers") {
        None | Some(Value::Null) => {
            let period = fields.optional_size("no_rope_layer_interval")?.unwrap_or(PERIOD);
            windows::layers(n_layers, |layer| (layer + 1).is_multiple_of(period))
        }
        Some(Value::Array(flags)) if flags.len() == n_layers && flags.iter().all(|flag| flag.as_u64().is_some()) => {
            Ok((0..n_layers).filter(|&layer| flags[layer].as_u64() == Some(0)).collect())
        }
        Some(other) => {
            Err(format!("`no_rope_layers` is {}, not a list with a number for each of {n_layers} layers", shown(other)))
        }
    }
}
