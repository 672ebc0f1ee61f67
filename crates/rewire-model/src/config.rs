//! The shape of a transformer, from a Hugging Face `config.json` or from numbers.

use std::path::Path;

use rewire_hooks::Site;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ModelError;

/// Which family a model belongs to; decides its file layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Sequential blocks, learned positions, tied unembedding.
    Gpt2,
    /// Parallel or sequential blocks, rotary positions, untied unembedding; Pythia.
    GptNeoX,
}

/// The MLP's activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x / 2 (1 + erf(x / sqrt 2))`.
    Gelu,
    /// The tanh form that GPT-2 was trained with.
    GeluNew,
    /// `max(x, 0)`.
    Relu,
}

/// How positions enter the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A learned embedding, added to the token's.
    Learned,
    /// Queries and keys are rotated by an angle that grows with position.
    Rotary {
        /// The first so many dimensions of each head are rotated, in half-split pairs `(i, i + dims / 2)`.
        dims: usize,
        /// Pair `i` turns by `position / base^(2 i / dims)`.
        base: f64,
    },
}

/// The shape of a [`Transformer`](crate::Transformer).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransformerConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads a block.
    pub n_heads: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of a head.
    pub d_head: usize,
    /// MLP neurons a block.
    pub d_mlp: usize,
    /// Vocabulary size.
    pub d_vocab: usize,
    /// Most positions.
    pub n_ctx: usize,
    /// The MLP's activation function.
    pub activation: Activation,
    /// Epsilon inside the norms' square root.
    pub norm_eps: f64,
    /// How positions enter.
    pub positions: Positions,
    /// Whether attention and MLP both read `resid_pre` (so that there is no `resid_mid`).
    pub parallel_block: bool,
    /// Whether the unembedding is the transposed token embedding (in the files; processing unties it).
    pub tied_unembedding: bool,
    /// The token that the field puts in front of a prompt.
    pub bos_token: Option<u32>,
}

impl TransformerConfig {
    /// A GPT-2 of the given size, `d_head = d_model / n_heads` and `d_mlp = 4 d_model`.
    #[must_use]
    pub fn gpt2(n_layers: usize, n_heads: usize, d_model: usize, d_vocab: usize, n_ctx: usize) -> Self {
        Self {
            architecture: Architecture::Gpt2,
            n_layers,
            n_heads,
            d_model,
            d_head: d_model / n_heads,
            d_mlp: 4 * d_model,
            d_vocab,
            n_ctx,
            activation: Activation::GeluNew,
            norm_eps: 1e-5,
            positions: Positions::Learned,
            parallel_block: false,
            tied_unembedding: true,
            bos_token: None,
        }
    }

    /// A GPT-NeoX of the given size as Pythia has it: parallel blocks, rotary positions on a quarter of each head.
    #[must_use]
    pub fn neox(n_layers: usize, n_heads: usize, d_model: usize, d_vocab: usize, n_ctx: usize) -> Self {
        let d_head = d_model / n_heads;
        Self {
            architecture: Architecture::GptNeoX,
            activation: Activation::Gelu,
            // Dimensions are rotated in pairs.
            positions: Positions::Rotary { dims: d_head / 8 * 2, base: 10_000.0 },
            parallel_block: true,
            tied_unembedding: false,
            ..Self::gpt2(n_layers, n_heads, d_model, d_vocab, n_ctx)
        }
    }

    /// The hook site at which keys are as attention uses them: rotated, in rotary models.
    #[must_use]
    pub fn key_site(&self) -> Site {
        if self.is_rotary() { Site::RotK } else { Site::K }
    }

    /// Whether queries and keys are rotated.
    #[must_use]
    pub fn is_rotary(&self) -> bool {
        matches!(self.positions, Positions::Rotary { .. })
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Read`] or, naming the field, [`ModelError::Config`].
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.into(), source })?;
        Self::from_json(&text).map_err(|reason| ModelError::Config { path: path.into(), reason })
    }

    /// Reads the text of a Hugging Face `config.json`; the error says which field is wrong.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("malformed JSON: {e}"))?;
        let fields = Fields(&json);
        let config = match fields.text("model_type")? {
            "gpt2" => fields.gpt2()?,
            "gpt_neox" => fields.neox()?,
            other => return Err(format!("model_type `{other}` is not supported; Rewire runs gpt2 and gpt_neox")),
        };
        config.check()?;
        Ok(config)
    }

    /// The `config.json` that [`from_file`](Self::from_file) reads back.
    #[must_use]
    pub fn to_hugging_face(&self) -> Value {
        let activation = match self.activation {
            Activation::Gelu => "gelu",
            Activation::GeluNew => "gelu_new",
            Activation::Relu => "relu",
        };
        match (self.architecture, self.positions) {
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
                    "rotary_pct": dims as f64 / self.d_head as f64, "rotary_emb_base": base,
                    "use_parallel_residual": self.parallel_block,
                    "bos_token_id": self.bos_token, "eos_token_id": self.bos_token,
                    "tie_word_embeddings": self.tied_unembedding,
                })
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("layers", self.n_layers),
            ("heads", self.n_heads),
            ("width", self.d_model),
            ("MLP width", self.d_mlp),
            ("vocabulary", self.d_vocab),
            ("context", self.n_ctx),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("the number of {name} is 0"));
        }
        if self.d_head * self.n_heads != self.d_model {
            return Err(format!("width {} is not a multiple of the {} heads", self.d_model, self.n_heads));
        }
        match self.positions {
            Positions::Rotary { dims, .. } if dims % 2 != 0 || dims > self.d_head => {
                Err(format!("{dims} rotary dimensions do not pair up within a head of {}", self.d_head))
            }
            _ => Ok(()),
        }
    }
}

/// Typed access to the fields of a `config.json`.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn gpt2(&self) -> Result<TransformerConfig, String> {
        for (field, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
            if self.flag(field, usual)? != usual {
                return Err(format!("`{field}` = {} is not supported", !usual));
            }
        }
        let (n_heads, d_model) = (self.size("n_head")?, self.size("n_embd")?);
        let n_ctx = self.size("n_positions")?;
        let base =
            TransformerConfig::gpt2(self.size("n_layer")?, n_heads.max(1), d_model, self.size("vocab_size")?, n_ctx);
        Ok(TransformerConfig {
            n_heads,
            d_mlp: self.optional_size("n_inner")?.unwrap_or(4 * d_model),
            activation: self.activation("activation_function", "gelu_new")?,
            norm_eps: self.number("layer_norm_epsilon")?.unwrap_or(1e-5),
            tied_unembedding: self.flag("tie_word_embeddings", true)?,
            bos_token: self.optional_size("bos_token_id")?.map(|id| id as u32),
            ..base
        })
    }

    fn neox(&self) -> Result<TransformerConfig, String> {
        if !self.flag("attention_bias", true)? {
            return Err("`attention_bias` = false is not supported".to_owned());
        }
        let (n_heads, d_model) = (self.size("num_attention_heads")?, self.size("hidden_size")?);
        let (n_layers, d_vocab) = (self.size("num_hidden_layers")?, self.size("vocab_size")?);
        let n_ctx = self.size("max_position_embeddings")?;
        let base = TransformerConfig::neox(n_layers, n_heads.max(1), d_model, d_vocab, n_ctx);
        // Newer exports keep these in an object of their own, under other names.
        let nested = self.0.get("rope_parameters").or(self.0.get("rope_scaling")).filter(|v| v.is_object());
        let rope = Fields(nested.unwrap_or(&Value::Null));
        let kind = rope.0.get("rope_type").or(rope.0.get("type")).and_then(Value::as_str).unwrap_or("default");
        if kind != "default" {
            return Err(format!("rotary positions of type `{kind}` are not supported"));
        }
        let rotary_pct = self.number("rotary_pct")?.or(self.number("partial_rotary_factor")?);
        let rotary_pct = rotary_pct.or(rope.number("partial_rotary_factor")?).unwrap_or(0.25);
        let base_angle = self.number("rotary_emb_base")?.or(self.number("rope_theta")?).or(rope.number("rope_theta")?);
        Ok(TransformerConfig {
            n_heads,
            d_mlp: self.optional_size("intermediate_size")?.unwrap_or(4 * d_model),
            activation: self.activation("hidden_act", "gelu")?,
            norm_eps: self.number("layer_norm_eps")?.unwrap_or(1e-5),
            positions: Positions::Rotary {
                dims: (rotary_pct * base.d_head as f64).floor() as usize,
                base: base_angle.unwrap_or(10_000.0),
            },
            parallel_block: self.flag("use_parallel_residual", true)?,
            tied_unembedding: self.flag("tie_word_embeddings", false)?,
            bos_token: self.optional_size("bos_token_id")?.map(|id| id as u32),
            ..base
        })
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        let value = self.0.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
        value.as_str().ok_or_else(|| format!("`{name}` is {value}, not a string"))
    }

    fn size(&self, name: &str) -> Result<usize, String> {
        self.optional_size(name)?.ok_or_else(|| format!("`{name}` is missing"))
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let size = value.as_u64().and_then(|n| u32::try_from(n).ok());
                size.map(|n| Some(n as usize)).ok_or_else(|| format!("`{name}` is {value}, not a whole number"))
            }
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("`{name}` is {value}, not a number")),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| format!("`{name}` is {value}, not true or false")),
        }
    }

    fn activation(&self, name: &str, default: &str) -> Result<Activation, String> {
        match self.0.get(name).map_or(Ok(default), |_| self.text(name))? {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluNew),
            "relu" => Ok(Activation::Relu),
            other => Err(format!("`{name}` `{other}` is not supported; Rewire has gelu, gelu_new and relu")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_goes_both_ways() {
        let odd = TransformerConfig {
            d_mlp: 7,
            bos_token: Some(3),
            norm_eps: 1e-6,
            ..TransformerConfig::gpt2(2, 2, 8, 11, 5)
        };
        let sequential = TransformerConfig { parallel_block: false, ..TransformerConfig::neox(1, 2, 32, 11, 5) };
        for config in [odd, sequential, TransformerConfig::neox(3, 4, 64, 11, 5)] {
            assert_eq!(TransformerConfig::from_json(&config.to_hugging_face().to_string()), Ok(config));
        }
    }

    #[test]
    fn rotary_positions_are_found_where_newer_exports_keep_them() {
        let mut json = TransformerConfig::neox(1, 2, 32, 11, 5).to_hugging_face();
        let fields = json.as_object_mut().unwrap();
        fields.remove("rotary_pct");
        fields.remove("rotary_emb_base");
        let rope = serde_json::json!({ "rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5 });
        fields.insert("rope_parameters".to_owned(), rope);
        let config = TransformerConfig::from_json(&json.to_string()).unwrap();
        assert_eq!(config.positions, Positions::Rotary { dims: 8, base: 500.0 });
        json["rope_parameters"]["rope_type"] = "yarn".into();
        assert!(TransformerConfig::from_json(&json.to_string()).unwrap_err().contains("`yarn`"));
    }
}
