//! Phi-3: Llama with a sliding window in every layer, and with fused matrices in the files. Rotary
//! positions of the type `longrope`, which the models with a long context have, are refused.

use serde_json::Value;

use crate::config::{Architecture, TransformerConfig};
use crate::families::family::Family;
use crate::families::llama::LLAMA;
use crate::families::llama_like::{self, Common};
use crate::families::windows;
use crate::files::fields::Fields;
use crate::weights::weight_name::WeightName;

// What transformers takes for fields that the file lacks.
const BOS: u32 = 1;
const NORM_EPS: f64 = 1e-5;

pub(crate) const PHI3: Family = Family {
    architecture: Architecture::Phi3,
    model_type: "phi3",
    read,
    write,
    tensors: &[
        (WeightName::WQkv, &["model.layers.L.self_attn.qkv_proj.weight"]),
        (WeightName::WGate, &["model.layers.L.mlp.gate_up_proj.weight"]),
        (WeightName::WIn, &["model.layers.L.mlp.gate_up_proj.weight"]),
    ],
    ..LLAMA
};

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let config = llama_like::read(fields, Common { norm_eps: NORM_EPS, ..Common::of(Architecture::Phi3) })?;
    let size = fields.optional_size("sliding_window")?;
    Ok(TransformerConfig {
        sliding_window: windows::in_layers(config.n_layers, size, |_| true)?,
        bos_token: fields.bos_token(BOS)?,
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = llama_like::write(config, "Phi3ForCausalLM");
    json["sliding_window"] = config.sliding_window.as_ref().map(|window| window.size).into();
    json
}
