//! Gemma-3, the models of text: Gemma-2 with norms on queries and keys, and without soft caps on
//! scores. Layers with a window have rotary angles of their own. Most layers have a window.

use serde_json::{Value, json};

use crate::config::{Architecture, QueryKeyNorms, TransformerConfig};
use crate::families::family::{Family, Wrapper};
use crate::families::gemma2::{GEMMA2, read_gemma, write_gemma};
use crate::families::llama_like::Common;
use crate::families::windows;
use crate::files::fields::{Fields, shown};

// What transformers takes for fields that the file lacks.
const WINDOW: usize = 4096;
const PERIOD: usize = 6;
const BASE: f64 = 1_000_000.0;
const LOCAL_BASE: f64 = 10_000.0;

pub(crate) const GEMMA3: Family = Family {
    architecture: Architecture::Gemma3,
    model_type: "gemma3_text",
    read,
    write,
    wrapper: Some(WRAPPER),
    ..GEMMA2
};

/// The models of text and images. The names are those of transformers 4.50 and the hub, of
/// transformers 5, and of the base model.
const WRAPPER: Wrapper = Wrapper {
    model_type: "gemma3",
    defaults,
    prefixes: &[
        ("language_model.model.", "model."),
        ("model.language_model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("language_model.", "model."),
    ],
    others: &["vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector."],
};

/// Returns what transformers takes for sizes that `text_config` lacks. [`read`] has the defaults of
/// the other fields.
fn defaults() -> Value {
    json!({
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "max_position_embeddings": 131_072,
    })
}

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    // transformers has the field and computes without it.
    if let Some(cap) = fields.0.get("attn_logit_softcapping").filter(|cap| !cap.is_null()) {
        return Err(format!("`attn_logit_softcapping` is {}; Rewire supports only null in this family", shown(cap)));
    }
    let config = read_gemma(fields, Common { rope_base: BASE, ..Common::of(Architecture::Gemma3) })?;
    let window = match fields.0.contains_key("sliding_window") {
        true => fields.size(&["sliding_window"])?,
        false => WINDOW,
    };
    let period = fields.optional_size("sliding_window_pattern")?.unwrap_or(PERIOD);
    let slides = |layer: usize| !(layer + 1).is_multiple_of(period);
    Ok(TransformerConfig {
        query_key_norms: QueryKeyNorms::EachHead,
        logit_cap: match fields.0.contains_key("final_logit_softcapping") {
            true => fields.optional_positive("final_logit_softcapping", 1.0)?,
            false => None,
        },
        sliding_window: windows::read(fields, config.n_layers, Some(window), slides)?,
        local_rotary_base: Some(fields.positive("rope_local_base_freq", LOCAL_BASE)?),
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = write_gemma(config, "Gemma3ForCausalLM");
    json["model_type"] = GEMMA3.model_type.into();
    json["sliding_window"] = json!(config.sliding_window.as_ref().map_or(WINDOW, |window| window.size));
    json["rope_local_base_freq"] = config.local_rotary_base.unwrap_or(LOCAL_BASE).into();
    json
}
