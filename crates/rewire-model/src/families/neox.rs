//! GPT-NeoX, as in Pythia: parallel or sequential blocks, rotary positions on a part of each head,
//! layer norm.

use rewire_input::cut;
use serde_json::{Map, Value, json};

use crate::config::{Activation, Architecture, Positions, TransformerConfig};
use crate::families::family::{Family, Gains, Orientation, QkvRows};
use crate::families::rope;
use crate::files::fields::{Fields, name_of, shown};
use crate::weights::weight_name::WeightName;

/// `bos_token_id` if the file lacks it, as in transformers.
const BOS: u32 = 0;

pub(crate) const NEOX: Family = Family {
    architecture: Architecture::GptNeoX,
    model_type: "gpt_neox",
    read,
    write,
    tensors: &[
        (WeightName::WE, &["gpt_neox.embed_in.weight"]),
        (WeightName::Ln1Gain, &["gpt_neox.layers.L.input_layernorm.weight"]),
        (WeightName::Ln1Bias, &["gpt_neox.layers.L.input_layernorm.bias"]),
        (WeightName::WQkv, &["gpt_neox.layers.L.attention.query_key_value.weight"]),
        (WeightName::BQkv, &["gpt_neox.layers.L.attention.query_key_value.bias"]),
        (WeightName::WO, &["gpt_neox.layers.L.attention.dense.weight"]),
        (WeightName::BO, &["gpt_neox.layers.L.attention.dense.bias"]),
        (WeightName::Ln2Gain, &["gpt_neox.layers.L.post_attention_layernorm.weight"]),
        (WeightName::Ln2Bias, &["gpt_neox.layers.L.post_attention_layernorm.bias"]),
        (WeightName::WIn, &["gpt_neox.layers.L.mlp.dense_h_to_4h.weight"]),
        (WeightName::BIn, &["gpt_neox.layers.L.mlp.dense_h_to_4h.bias"]),
        (WeightName::WOut, &["gpt_neox.layers.L.mlp.dense_4h_to_h.weight"]),
        (WeightName::BOut, &["gpt_neox.layers.L.mlp.dense_4h_to_h.bias"]),
        (WeightName::FinalGain, &["gpt_neox.final_layer_norm.weight"]),
        (WeightName::FinalBias, &["gpt_neox.final_layer_norm.bias"]),
        (WeightName::WU, &["embed_out.weight"]),
    ],
    shared_tensors: &[],
    linear: Orientation::OutIn,
    qkv: QkvRows::ByHead,
    gains: Gains::Whole,
    unused_positions: 0,
    wrapper: None,
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let n_heads = fields.size(&["num_attention_heads"])?;
    let d_model = fields.size(&["hidden_size"])?;
    fields.check_heads(n_heads, d_model, ["num_attention_heads", "hidden_size"])?;
    let (n_layers, d_vocab) = (fields.size(&["num_hidden_layers"])?, fields.size(&["vocab_size"])?);
    let n_ctx = fields.size(&["max_position_embeddings"])?;
    Ok(TransformerConfig {
        d_mlp: fields.size(&["intermediate_size"])?,
        activation: fields.activation("hidden_act", Activation::Gelu, &Activation::UNGATED)?,
        norm_eps: fields.positive("layer_norm_eps", 1e-5)?,
        positions: rotary(fields, d_model / n_heads)?,
        attention_bias: fields.flag("attention_bias", true)?,
        parallel_block: fields.flag("use_parallel_residual", true)?,
        tied_unembedding: fields.flag("tie_word_embeddings", false)?,
        bos_token: fields.bos_token(BOS)?,
        ..TransformerConfig::neox(n_layers, n_heads, d_model, d_vocab, n_ctx)
    })
}

fn write(config: &TransformerConfig) -> Value {
    let (dims, base) = match config.positions {
        Positions::Rotary { dims, base } => (dims, base),
        Positions::Learned => (0, 10_000.0),
    };
    let mut json = json!({
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox",
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "hidden_size": config.d_model, "intermediate_size": config.d_mlp,
        "max_position_embeddings": config.n_ctx, "vocab_size": config.d_vocab,
        "hidden_act": name_of(config.activation), "layer_norm_eps": config.norm_eps,
        "rotary_pct": rotary_share(dims, config.d_head), "rotary_emb_base": base,
        "use_parallel_residual": config.parallel_block,
        "bos_token_id": config.bos_token, "eos_token_id": config.bos_token,
        "tie_word_embeddings": config.tied_unembedding,
    });
    if !config.attention_bias {
        json["attention_bias"] = false.into();
    }
    json
}

/// Reads the rotary positions.
///
/// The fields of the object of rotary parameters override `rotary_pct` and `rotary_emb_base`.
fn rotary(fields: &Fields<'_>, d_head: usize) -> Result<Positions, String> {
    let none = Map::new();
    let (name, parameters) = rope::parameters(fields, &none)?;
    check_default_rotation(name, &parameters)?;
    let inside = |e: String| format!("in `{name}`: {e}");

    let share = match parameters.number("partial_rotary_factor").map_err(inside)? {
        Some(share) => share,
        None => fields.number("rotary_pct")?.unwrap_or(0.25),
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("`rotary_pct` (or `partial_rotary_factor`) is {share}, and it must be from 0 to 1"));
    }
    let base = match parameters.0.contains_key("rope_theta") {
        true => parameters.positive("rope_theta", 10_000.0).map_err(inside)?,
        false => fields.positive("rotary_emb_base", 10_000.0)?,
    };
    // transformers reads these two fields only inside the object.
    for (name, value, other) in
        [("rotary_pct", share, "partial_rotary_factor"), ("rotary_emb_base", base, "rope_theta")]
    {
        if !parameters.0.contains_key(other) {
            check_repeated(fields, name, value, other)?;
        }
    }
    let dims = (share * d_head as f64).floor() as usize;
    if !dims.is_multiple_of(2) {
        return Err(format!(
            "`rotary_pct` (or `partial_rotary_factor`) {share} rotates {dims} dimensions of a head of {d_head}; \
             the number must be even"
        ));
    }
    Ok(Positions::Rotary { dims, base })
}

/// Refuses an object of rotary parameters that asks for anything but plain rotation.
fn check_default_rotation(name: &str, parameters: &Fields<'_>) -> Result<(), String> {
    let kinds: Vec<&Value> = ["rope_type", "type"].iter().filter_map(|field| parameters.0.get(*field)).collect();
    if let Some(other) = kinds.iter().find(|kind| kind.as_str() != Some("default")) {
        return Err(format!(
            "`{name}` has the type {}; Rewire supports only rotary positions of the type \"default\"",
            shown(other)
        ));
    }
    // Without a type, transformers 4 fails, and transformers 5 ignores the other fields.
    let plain = |field: &&String| ["rope_theta", "partial_rotary_factor"].contains(&field.as_str());
    match parameters.0.keys().find(|field| !plain(field)) {
        Some(field) if kinds.is_empty() => {
            let field = cut(field);
            Err(format!("`{name}` has `{field}` and no `rope_type`; add the type of rotary positions"))
        }
        _ => Ok(()),
    }
}

/// Refuses a value in `other` that differs from `value`: transformers does not read `other`.
fn check_repeated(fields: &Fields<'_>, name: &str, value: f64, other: &str) -> Result<(), String> {
    match fields.number(other)? {
        Some(second) if second != value => Err(format!(
            "`{other}` is {second} and `{name}` is {value}; transformers reads `{name}` alone, so make them equal or \
             remove `{other}`"
        )),
        _ => Ok(()),
    }
}

/// Returns the fraction of a head that reads back as `dims` dimensions, despite the rounding of
/// division and decimal text.
fn rotary_share(dims: usize, d_head: usize) -> f64 {
    let read_back = |share: f64| share.to_string().parse::<Value>().ok().and_then(|v| v.as_f64()).unwrap_or(share);
    let mut share = dims as f64 / d_head as f64;
    while ((read_back(share) * d_head as f64).floor() as usize) < dims {
        share = share.next_up();
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rotary_dimensions_round_trips() {
        for d_head in 1..=160 {
            for dims in (0..=d_head).step_by(2) {
                let positions = Positions::Rotary { dims, base: 10_000.0 };
                let config = TransformerConfig { positions, ..TransformerConfig::neox(1, 1, d_head, 11, 5) };
                assert_eq!(TransformerConfig::from_json(config.to_hugging_face().to_string().as_bytes()), Ok(config));
            }
        }
    }

    #[test]
    fn rotary_settings_of_newer_exports_are_read() {
        let mut json = TransformerConfig::neox(1, 2, 32, 11, 5).to_hugging_face();
        let fields = json.as_object_mut().unwrap();
        fields.remove("rotary_pct");
        fields.remove("rotary_emb_base");
        let rope = serde_json::json!({ "rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5 });
        fields.insert("rope_parameters".to_owned(), rope);
        let config = TransformerConfig::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(config.positions, Positions::Rotary { dims: 8, base: 500.0 });
        json["rope_parameters"]["rope_type"] = "yarn".into();
        assert!(TransformerConfig::from_json(json.to_string().as_bytes()).unwrap_err().contains("\"yarn\""));
    }
}
