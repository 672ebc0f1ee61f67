//! Gemma-3, the models of text: Gemma-2 with norms on queries and keys, and without soft caps on
//! scores. Layers with a window have rotary angles of their own. Most layers have a window.

use serde_json::{Map, Value, json};

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
    match by_kind_of_layer(fields)? {
        Some(flat) => read_flat(&Fields(&flat)),
        None => read_flat(fields),
    }
}

/// Returns the fields with one object of rotary parameters, and `rope_local_base_freq`, if the file
/// has an object for each kind of layer. transformers 5 writes such files.
fn by_kind_of_layer(fields: &Fields<'_>) -> Result<Option<Map<String, Value>>, String> {
    const KINDS: [&str; 2] = ["full_attention", "sliding_attention"];
    let Some(Value::Object(parameters)) = fields.0.get("rope_parameters") else { return Ok(None) };
    if !KINDS.iter().any(|kind| parameters.contains_key(*kind)) {
        return Ok(None);
    }
    if let Some(other) = parameters.keys().find(|kind| !KINDS.contains(&kind.as_str())) {
        let other = rewire_input::cut(other);
        return Err(format!("`rope_parameters` has `{other}` beside the objects `{}` and `{}`", KINDS[0], KINDS[1]));
    }
    let [full, sliding] = KINDS.map(|kind| match parameters.get(kind) {
        Some(Value::Object(object)) => Ok(object),
        Some(other) => Err(format!("`rope_parameters.{kind}` is {}, not an object", shown(other))),
        None => Err(format!("`rope_parameters` lacks `{kind}`")),
    });
    let (full, sliding) = (full?, Fields(sliding?));
    if let Some(kind) = sliding.0.get("rope_type").filter(|kind| *kind != "default") {
        return Err(format!(
            "`rope_parameters.sliding_attention` has the type {}; Rewire supports only \"default\" there",
            shown(kind)
        ));
    }
    let mut flat = fields.0.clone();
    let local = sliding.positive("rope_theta", LOCAL_BASE);
    let local = local.map_err(|e| format!("in `rope_parameters.sliding_attention`: {e}"))?;
    flat.insert("rope_local_base_freq".to_owned(), local.into());
    flat.insert("rope_parameters".to_owned(), Value::Object(full.clone()));
    Ok(Some(flat))
}

fn read_flat(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &[u8] = include_bytes!("../../../../tests/fixtures/families/tiny-gemma3/model/config.json");

    /// Returns the configuration of the fixture after `change`.
    fn read_changed(change: impl FnOnce(&mut Map<String, Value>)) -> Result<TransformerConfig, String> {
        let mut json: Map<String, Value> = serde_json::from_slice(CONFIG).unwrap();
        change(&mut json);
        TransformerConfig::from_json(Value::Object(json).to_string().as_bytes())
    }

    /// Replaces the rotary fields by those of transformers 5.
    fn by_kind(fields: &mut Map<String, Value>, sliding_type: &str) {
        for field in ["rope_theta", "rope_local_base_freq", "rope_scaling"] {
            fields.remove(field);
        }
        let parameters = json!({
            "full_attention": { "rope_type": "linear", "factor": 8.0, "rope_theta": 77_000.0 },
            "sliding_attention": { "rope_type": sliding_type, "rope_theta": 900.0 },
        });
        fields.insert("rope_parameters".to_owned(), parameters);
    }

    #[test]
    fn rotary_parameters_of_each_kind_of_layer_are_those_of_one_object() {
        let flat = read_changed(|fields| {
            fields.insert("rope_theta".to_owned(), json!(77_000.0));
            fields.insert("rope_local_base_freq".to_owned(), json!(900.0));
            fields.insert("rope_scaling".to_owned(), json!({ "rope_type": "linear", "factor": 8.0 }));
        });
        let flat = flat.unwrap();
        assert_eq!(flat.local_rotary_base, Some(900.0));
        assert_eq!(read_changed(|fields| by_kind(fields, "default")).unwrap(), flat);
    }

    #[test]
    fn unsupported_rotary_parameters_of_a_kind_of_layer_are_refused() {
        let scaled = read_changed(|fields| by_kind(fields, "linear")).unwrap_err();
        assert!(scaled.contains("sliding_attention") && scaled.contains("\"linear\""), "{scaled}");
        let lacking = read_changed(|fields| {
            by_kind(fields, "default");
            fields["rope_parameters"].as_object_mut().unwrap().remove("full_attention");
        });
        assert_eq!(lacking.unwrap_err(), "`rope_parameters` lacks `full_attention`");
        let extra = read_changed(|fields| {
            by_kind(fields, "default");
            fields["rope_parameters"]["chunked_attention"] = json!({});
        });
        assert!(extra.unwrap_err().contains("`chunked_attention`"));
    }
}
