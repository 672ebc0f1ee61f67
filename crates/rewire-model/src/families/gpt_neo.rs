//! GPT-Neo: GPT-2 with scores that are not scaled, without biases on queries, keys and values, and
//! with a window in the layers of the type `local`.

use serde_json::{Value, json};

use crate::config::{Activation, Architecture, SlidingWindow, TransformerConfig};
use crate::families::family::{Family, Orientation};
use crate::families::gpt2::GPT2;
use crate::families::windows;
use crate::files::fields::{Fields, name_of, shown};
use crate::weights::weight_name::WeightName;

// What transformers takes for fields that the file lacks.
const BOS: u32 = 50_256;
const WINDOW: usize = 256;

/// The types of layers: with the whole prompt, and with a window.
const TYPES: [&str; 2] = ["global", "local"];

pub(crate) const GPT_NEO: Family = Family {
    architecture: Architecture::GptNeo,
    model_type: "gpt_neo",
    read,
    write,
    tensors: &[
        (
            WeightName::WQkv,
            &[
                "h.L.attn.attention.q_proj.weight",
                "h.L.attn.attention.k_proj.weight",
                "h.L.attn.attention.v_proj.weight",
            ],
        ),
        (WeightName::WO, &["h.L.attn.attention.out_proj.weight"]),
        (WeightName::BO, &["h.L.attn.attention.out_proj.bias"]),
    ],
    shared_tensors: GPT2.tensors,
    linear: Orientation::OutIn,
    ..GPT2
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    // transformers has two names for two of these sizes.
    let n_layers = fields.size(&["num_layers", "num_hidden_layers"])?;
    let n_heads = fields.size(&["num_heads", "num_attention_heads"])?;
    let d_model = fields.size(&["hidden_size"])?;
    fields.check_heads(n_heads, d_model, ["num_heads", "hidden_size"])?;
    let (d_vocab, n_ctx) = (fields.size(&["vocab_size"])?, fields.size(&["max_position_embeddings"])?);
    Ok(TransformerConfig {
        architecture: Architecture::GptNeo,
        d_mlp: fields.optional_size("intermediate_size")?.unwrap_or(4 * d_model),
        activation: fields.activation("activation_function", Activation::GeluNew, &Activation::UNGATED)?,
        norm_eps: fields.positive("layer_norm_epsilon", 1e-5)?,
        sliding_window: read_window(fields, n_layers)?,
        score_scalar: Some(1.0),
        attention_input_bias: false,
        tied_unembedding: fields.flag("tie_word_embeddings", true)?,
        bos_token: fields.bos_token(BOS)?,
        ..TransformerConfig::gpt2(n_layers, n_heads, d_model, d_vocab, n_ctx)
    })
}

fn write(config: &TransformerConfig) -> Value {
    let window = config.sliding_window.as_ref();
    let type_of = |layer: usize| TYPES[usize::from(config.window(layer).is_some())];
    json!({
        "architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo",
        "num_layers": config.n_layers, "num_heads": config.n_heads, "hidden_size": config.d_model,
        "intermediate_size": config.d_mlp, "max_position_embeddings": config.n_ctx, "vocab_size": config.d_vocab,
        "attention_types": [[(0..config.n_layers).map(type_of).collect::<Vec<_>>(), 1]],
        "window_size": window.map_or(WINDOW, |window| window.size),
        "activation_function": name_of(config.activation), "layer_norm_epsilon": config.norm_eps,
        "bos_token_id": config.bos_token, "eos_token_id": config.bos_token,
        "tie_word_embeddings": config.tied_unembedding,
    })
}

/// Reads the window, and the layers that have it. `attention_types` lists groups of types, each
/// with the number of its repetitions: `[[["global", "local"], 6]]` for twelve layers.
fn read_window(fields: &Fields<'_>, n_layers: usize) -> Result<Option<SlidingWindow>, String> {
    let size = match fields.0.contains_key("window_size") {
        true => fields.size(&["window_size"])?,
        false => WINDOW,
    };
    let Some(given) = fields.0.get("attention_types") else {
        return Err("`attention_types` is missing".to_owned());
    };
    let wrong = || {
        format!(
            "`attention_types` is {}, not groups of \"global\" and \"local\" with their repetitions for {n_layers} \
             layers",
            shown(given)
        )
    };
    let mut is_local = Vec::new();
    for group in given.as_array().ok_or_else(wrong)? {
        let Some([Value::Array(types), times]) = group.as_array().map(Vec::as_slice) else { return Err(wrong()) };
        let local = |value: &Value| TYPES.iter().position(|name| value.as_str() == Some(name)).map(|at| at == 1);
        let types: Vec<bool> = types.iter().map(local).collect::<Option<_>>().ok_or_else(wrong)?;
        let times = times.as_u64().filter(|times| *times <= n_layers as u64).ok_or_else(wrong)?;
        if is_local.len() as u64 + types.len() as u64 * times > n_layers as u64 {
            return Err(wrong());
        }
        (0..times).for_each(|_| is_local.extend(&types));
    }
    match is_local.len() == n_layers {
        true => windows::in_layers(n_layers, Some(size), |layer| is_local[layer]),
        false => Err(wrong()),
    }
}
