//! Reads and writes the fields of a Hugging Face `config.json`. A field that changes the
//! mathematics is honored or refused.
//!
//! Every field has the meaning that transformers gives it (`GPT2Config`, `GPTNeoXConfig` and the
//! fields that all configurations share). Fields that transformers does not know are ignored, as
//! transformers ignores them.

use std::path::Path;

use rewire_input::{cut, read_regular, repeated_key};
use serde_json::{Map, Value};

use crate::config::{Activation, Architecture, Positions, TransformerConfig};
use crate::error::ModelError;

/// Maximum size in bytes of a `config.json` or of an index of shards. Known ones have fewer than a
/// million bytes.
pub(crate) const MOST_JSON_BYTES: u64 = 16 << 20;

/// What some editors put in front of UTF-8. It is not JSON, and says nothing.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Defaults of `bos_token_id` if the file lacks it, as in transformers.
const GPT2_BOS: u32 = 50_256;
const NEOX_BOS: u32 = 0;

impl TransformerConfig {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read, and [`ModelError::Config`], which names the
    /// field, if the configuration is wrong or unsupported.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let text =
            read_regular(path, MOST_JSON_BYTES).map_err(|source| ModelError::Read { path: path.into(), source })?;
        Self::from_json(&text).map_err(|reason| ModelError::Config { path: path.into(), reason })
    }

    /// Reads the text of a Hugging Face `config.json`. The error names the field that is wrong.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, String> {
        if text.len() as u64 > MOST_JSON_BYTES {
            return Err(format!("it has {} bytes; at most {MOST_JSON_BYTES} are allowed", text.len()));
        }
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let json = serde_json::from_slice(text).map_err(|e| format!("malformed JSON: {e}"))?;
        match repeated_key(text) {
            Some(field) => Err(format!("it names `{}` twice; keep one", cut(&field))),
            None => read(&json),
        }
    }

    /// Returns the `config.json` that [`from_file`](Self::from_file) reads back.
    #[must_use]
    pub fn to_hugging_face(&self) -> Value {
        let activation = match self.activation {
            Activation::Gelu => "gelu",
            Activation::GeluNew => "gelu_new",
            Activation::Relu => "relu",
        };
        let mut json = match (self.architecture, self.positions) {
            (Architecture::Gpt2, _) => serde_json::json!({
                "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
                "n_layer": self.n_layers, "n_head": self.n_heads, "n_embd": self.d_model, "n_inner": self.d_mlp,
                "n_ctx": self.n_ctx, "n_positions": self.n_ctx, "vocab_size": self.d_vocab,
                "activation_function": activation, "layer_norm_epsilon": self.norm_eps,
                "bos_token_id": self.bos_token, "eos_token_id": self.bos_token,
                "tie_word_embeddings": self.tied_unembedding,
            }),
            (Architecture::GptNeoX, positions) => {
                let (dims, base) = match positions {
                    Positions::Rotary { dims, base } => (dims, base),
                    Positions::Learned => (0, 10_000.0),
                };
                serde_json::json!({
                    "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox",
                    "num_hidden_layers": self.n_layers, "num_attention_heads": self.n_heads,
                    "hidden_size": self.d_model, "intermediate_size": self.d_mlp,
                    "max_position_embeddings": self.n_ctx, "vocab_size": self.d_vocab,
                    "hidden_act": activation, "layer_norm_eps": self.norm_eps,
                    "rotary_pct": rotary_share(dims, self.d_head), "rotary_emb_base": base,
                    "use_parallel_residual": self.parallel_block,
                    "bos_token_id": self.bos_token, "eos_token_id": self.bos_token,
                    "tie_word_embeddings": self.tied_unembedding,
                })
            }
        };
        if self.scores_by_inverse_layer {
            json["scale_attn_by_inverse_layer_idx"] = true.into();
        }
        if !self.attention_bias {
            json["attention_bias"] = false.into();
        }
        json
    }
}

/// Returns the configuration that a `config.json` describes. The error names the field and its
/// value.
fn read(json: &Value) -> Result<TransformerConfig, String> {
    let fields = Fields(json.as_object().ok_or("it is not a JSON object")?);
    match fields.text("model_type")? {
        Some("gpt2") => fields.gpt2(),
        Some("gpt_neox") => fields.neox(),
        Some(other) => Err(format!("`model_type` `{}` is not supported; Rewire runs gpt2 and gpt_neox", cut(other))),
        None => Err("`model_type` is missing; it must be gpt2 or gpt_neox".to_owned()),
    }
}

/// Typed access to the fields of a JSON object.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn gpt2(&self) -> Result<TransformerConfig, String> {
        // `reorder_and_upcast_attn` is not read: with it, transformers computes scores in float32
        // and divides before the matmul. In float32, that changes only the rounding.
        for (field, needed) in [("scale_attn_weights", true), ("add_cross_attention", false)] {
            self.needs(field, needed)?;
        }
        // transformers has two names for each of these sizes.
        let n_layers = self.size(&["n_layer", "num_hidden_layers"])?;
        let n_heads = self.size(&["n_head", "num_attention_heads"])?;
        let d_model = self.size(&["n_embd", "hidden_size"])?;
        let n_ctx = self.size(&["n_positions", "max_position_embeddings"])?;
        self.check_heads(n_heads, d_model, ["n_head", "n_embd"])?;
        Ok(TransformerConfig {
            d_mlp: self.optional_size("n_inner")?.unwrap_or(4 * d_model),
            activation: self.activation("activation_function", Activation::GeluNew)?,
            norm_eps: self.positive("layer_norm_epsilon", 1e-5)?,
            scores_by_inverse_layer: match self.0.get("scale_attn_by_inverse_layer_idx") {
                // As in Python, null counts as false.
                Some(Value::Null) => false,
                _ => self.flag("scale_attn_by_inverse_layer_idx", false)?,
            },
            tied_unembedding: self.flag("tie_word_embeddings", true)?,
            bos_token: self.bos_token(GPT2_BOS)?,
            ..TransformerConfig::gpt2(n_layers, n_heads, d_model, self.size(&["vocab_size"])?, n_ctx)
        })
    }

    fn neox(&self) -> Result<TransformerConfig, String> {
        let n_heads = self.size(&["num_attention_heads"])?;
        let d_model = self.size(&["hidden_size"])?;
        self.check_heads(n_heads, d_model, ["num_attention_heads", "hidden_size"])?;
        let (n_layers, d_vocab) = (self.size(&["num_hidden_layers"])?, self.size(&["vocab_size"])?);
        let n_ctx = self.size(&["max_position_embeddings"])?;
        Ok(TransformerConfig {
            d_mlp: self.size(&["intermediate_size"])?,
            activation: self.activation("hidden_act", Activation::Gelu)?,
            norm_eps: self.positive("layer_norm_eps", 1e-5)?,
            positions: self.rotary(d_model / n_heads)?,
            attention_bias: self.flag("attention_bias", true)?,
            parallel_block: self.flag("use_parallel_residual", true)?,
            tied_unembedding: self.flag("tie_word_embeddings", false)?,
            bos_token: self.bos_token(NEOX_BOS)?,
            ..TransformerConfig::neox(n_layers, n_heads, d_model, d_vocab, n_ctx)
        })
    }

    /// Reads the rotary positions.
    ///
    /// transformers 5 keeps their parameters in an object: `rope_scaling` or, if that is null or
    /// empty, `rope_parameters`. The fields of the object override `rotary_pct` and
    /// `rotary_emb_base`.
    fn rotary(&self, d_head: usize) -> Result<Positions, String> {
        let none = Map::new();
        let mut parameters = ("rope_parameters", Fields(&none));
        for name in ["rope_parameters", "rope_scaling"] {
            match self.0.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Object(object)) if object.is_empty() => {}
                Some(Value::Object(object)) => parameters = (name, Fields(object)),
                Some(other) => return Err(format!("`{name}` is {}, not an object", json(other))),
            }
        }
        let (name, parameters) = parameters;
        parameters.check_default_rotation(name)?;
        let inside = |e: String| format!("in `{name}`: {e}");

        let share = match parameters.number("partial_rotary_factor").map_err(inside)? {
            Some(share) => share,
            None => self.number("rotary_pct")?.unwrap_or(0.25),
        };
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("`rotary_pct` (or `partial_rotary_factor`) is {share}, and it must be from 0 to 1"));
        }
        let base = match parameters.0.contains_key("rope_theta") {
            true => parameters.positive("rope_theta", 10_000.0).map_err(inside)?,
            false => self.positive("rotary_emb_base", 10_000.0)?,
        };
        // transformers reads these two fields only inside the object.
        for (name, value, other) in
            [("rotary_pct", share, "partial_rotary_factor"), ("rotary_emb_base", base, "rope_theta")]
        {
            if !parameters.0.contains_key(other) {
                self.check_repeated(name, value, other)?;
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
    fn check_default_rotation(&self, name: &str) -> Result<(), String> {
        let kinds: Vec<&Value> = ["rope_type", "type"].iter().filter_map(|field| self.0.get(*field)).collect();
        if let Some(other) = kinds.iter().find(|kind| kind.as_str() != Some("default")) {
            return Err(format!(
                "`{name}` has the type {}; Rewire supports only rotary positions of the type \"default\"",
                json(other)
            ));
        }
        // Without a type, transformers 4 fails, and transformers 5 ignores the other fields.
        let plain = |field: &&String| ["rope_theta", "partial_rotary_factor"].contains(&field.as_str());
        match self.0.keys().find(|field| !plain(field)) {
            Some(field) if kinds.is_empty() => {
                let field = cut(field);
                Err(format!("`{name}` has `{field}` and no `rope_type`; add the type of rotary positions"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a value in `other` that differs from `value`: transformers does not read `other`.
    fn check_repeated(&self, name: &str, value: f64, other: &str) -> Result<(), String> {
        match self.number(other)? {
            Some(second) if second != value => Err(format!(
                "`{other}` is {second} and `{name}` is {value}; transformers reads `{name}` alone, so make them equal or \
                 remove `{other}`"
            )),
            _ => Ok(()),
        }
    }

    /// Refuses heads that do not divide the width, and fields of any family that change the weights
    /// or the heads.
    fn check_heads(&self, n_heads: usize, d_model: usize, [heads, width]: [&str; 2]) -> Result<(), String> {
        if !d_model.is_multiple_of(n_heads) {
            return Err(format!("`{width}` {d_model} is not a multiple of `{heads}` {n_heads}"));
        }
        let d_head = d_model / n_heads;
        match self.optional_size("head_dim")? {
            Some(other) if other != d_head => {
                return Err(format!("`head_dim` is {other}, and `{width}` over `{heads}` is {d_head}"));
            }
            _ => {}
        }
        for field in ["pruned_heads", "quantization_config"] {
            match self.0.get(field) {
                None | Some(Value::Null) => {}
                Some(Value::Object(object)) if object.is_empty() => {}
                Some(value) => return Err(format!("`{field}` is {}, and Rewire does not support it", json(value))),
            }
        }
        Ok(())
    }

    /// Refuses a flag whose value is not `needed`, which is also its default. Null counts as false,
    /// as in Python.
    fn needs(&self, name: &str, needed: bool) -> Result<(), String> {
        match self.0.get(name) {
            None => Ok(()),
            Some(Value::Null) if !needed => Ok(()),
            Some(value) if value.as_bool() == Some(needed) => Ok(()),
            Some(value) => Err(format!("`{name}` is {}; Rewire supports only {needed}", json(value))),
        }
    }

    /// Reads the BOS token: `default` if the field is absent, and none if it is null.
    fn bos_token(&self, default: u32) -> Result<Option<u32>, String> {
        match self.0.get("bos_token_id") {
            None => Ok(Some(default)),
            Some(value) => whole("bos_token_id", value),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let text = |value: &Value| format!("`{name}` is {}, not a string", json(value));
        self.0.get(name).map(|value| value.as_str().ok_or_else(|| text(value))).transpose()
    }

    /// Reads a size that has several names. All fields that are present must agree.
    fn size(&self, names: &[&str]) -> Result<usize, String> {
        let mut found: Option<(&str, usize)> = None;
        for &name in names {
            let Some(size) = self.optional_size(name)? else { continue };
            match found {
                Some((first, other)) if other != size => {
                    return Err(format!("`{first}` is {other} and `{name}` is {size}, and they name the same size"));
                }
                _ => found = Some((name, size)),
            }
        }
        found.map(|(_, size)| size).ok_or_else(|| format!("`{}` is missing", names[0]))
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>, String> {
        match self.0.get(name).map_or(Ok(None), |value| whole(name, value))? {
            Some(0) => Err(format!("`{name}` is 0, and it must be at least 1")),
            size => Ok(size.map(|n| n as usize)),
        }
    }

    /// Reads a number. Null is refused, because transformers would compute with it.
    fn number(&self, name: &str) -> Result<Option<f64>, String> {
        let number = |value: &Value| value.as_f64().ok_or_else(|| format!("`{name}` is {}, not a number", json(value)));
        self.0.get(name).map(number).transpose()
    }

    /// Reads a number that must be above 0 and finite in float32.
    fn positive(&self, name: &str, default: f64) -> Result<f64, String> {
        let value = self.number(name)?.unwrap_or(default);
        match value as f32 {
            short if short > 0.0 && short.is_finite() => Ok(value),
            _ => Err(format!("`{name}` is {value}, and it must be above 0 and finite in float32")),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        let flag =
            |value: &Value| value.as_bool().ok_or_else(|| format!("`{name}` is {}, not true or false", json(value)));
        self.0.get(name).map_or(Ok(default), flag)
    }

    /// Reads the activation function. transformers has several names for one function.
    fn activation(&self, name: &str, default: Activation) -> Result<Activation, String> {
        match self.text(name)? {
            None => Ok(default),
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh") => {
                Ok(Activation::GeluNew)
            }
            Some("relu") => Ok(Activation::Relu),
            Some(other) => {
                Err(format!("`{name}` `{}` is not supported; Rewire supports gelu, gelu_new and relu", cut(other)))
            }
        }
    }
}

/// Returns a value as text for a message.
fn json(value: &Value) -> String {
    cut(&value.to_string())
}

/// Reads a whole number, or null.
fn whole(name: &str, value: &Value) -> Result<Option<u32>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.map(Some).ok_or_else(|| format!("`{name}` is {}, not a whole number from 0 to {}", json(value), u32::MAX))
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
    fn configurations_round_trip() {
        let odd = TransformerConfig {
            d_mlp: 7,
            bos_token: Some(3),
            norm_eps: 1e-6,
            ..TransformerConfig::gpt2(2, 2, 8, 11, 5)
        };
        let sequential = TransformerConfig { parallel_block: false, ..TransformerConfig::neox(1, 2, 32, 11, 5) };
        let by_layer = TransformerConfig { scores_by_inverse_layer: true, ..TransformerConfig::gpt2(3, 2, 8, 11, 5) };
        let unbiased = TransformerConfig { attention_bias: false, ..TransformerConfig::neox(2, 2, 16, 11, 5) };
        for config in [odd, sequential, by_layer, unbiased, TransformerConfig::neox(3, 4, 64, 11, 5)] {
            assert_eq!(TransformerConfig::from_json(config.to_hugging_face().to_string().as_bytes()), Ok(config));
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
