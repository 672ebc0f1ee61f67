//! OLMo-2: Llama with norms after attention and MLP instead of before, and with norms over all
//! queries and over all keys.

use serde_json::Value;

use crate::config::{Architecture, QueryKeyNorms, TransformerConfig};
use crate::families::family::Family;
use crate::families::llama::LLAMA;
use crate::families::llama_like::{self, Common, POST_NORMS};
use crate::files::fields::Fields;

/// `rms_norm_eps` if the file lacks it, as in transformers.
const NORM_EPS: f64 = 1e-5;

pub(crate) const OLMO2: Family =
    Family { architecture: Architecture::Olmo2, model_type: "olmo2", read, write, tensors: POST_NORMS, ..LLAMA };

fn read(fields: &Fields<'_>) -> Result<TransformerConfig, String> {
    let config = llama_like::read(fields, Common { norm_eps: NORM_EPS, ..Common::of(Architecture::Olmo2) })?;
    Ok(TransformerConfig {
        pre_norms: false,
        post_norms: true,
        query_key_norms: QueryKeyNorms::AllHeads,
        attention_bias: fields.flag("attention_bias", false)?,
        bos_token: fields.bos_token(None)?,
        ..config
    })
}

fn write(config: &TransformerConfig) -> Value {
    let mut json = llama_like::write(config, "Olmo2ForCausalLM");
    json["attention_bias"] = config.attention_bias.into();
    json
}
