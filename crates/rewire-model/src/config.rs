//! The shape of a transformer, from a Hugging Face `config.json` or from numbers.

use std::path::Path;

use rewire_hooks::Site;
use rewire_input::{cut, read_regular, repeated_key};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ModelError, fields};

/// Most bytes of a `config.json` or of an index of shards. Known ones have fewer than a million.
pub(crate) const MOST_JSON_BYTES: u64 = 16 << 20;

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
    /// The token that the field puts in front of a prompt, if the model has one. Text that Rewire
    /// tokenizes begins with it.
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
        let text =
            read_regular(path, MOST_JSON_BYTES).map_err(|source| ModelError::Read { path: path.into(), source })?;
        Self::from_json(&text).map_err(|reason| ModelError::Config { path: path.into(), reason })
    }

    /// Reads the text of a Hugging Face `config.json`; the error says which field is wrong.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, String> {
        if text.len() as u64 > MOST_JSON_BYTES {
            return Err(format!("it has {} bytes, and {MOST_JSON_BYTES} are the most", text.len()));
        }
        let json = serde_json::from_slice(text).map_err(|e| format!("malformed JSON: {e}"))?;
        match repeated_key(text) {
            Some(field) => Err(format!("it names `{}` twice; keep one of them", cut(&field))),
            None => fields::read(&json),
        }
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
                    "rotary_pct": rotary_share(dims, self.d_head), "rotary_emb_base": base,
                    "use_parallel_residual": self.parallel_block,
                    "bos_token_id": self.bos_token, "eos_token_id": self.bos_token,
                    "tie_word_embeddings": self.tied_unembedding,
                })
            }
        }
    }
}

/// The share of a head that reads back as `dims` dimensions, whatever division and decimal text
/// round off.
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
    fn every_number_of_rotary_dimensions_goes_both_ways() {
        for d_head in 1..=160 {
            for dims in (0..=d_head).step_by(2) {
                let positions = Positions::Rotary { dims, base: 10_000.0 };
                let config = TransformerConfig { positions, ..TransformerConfig::neox(1, 1, d_head, 11, 5) };
                assert_eq!(TransformerConfig::from_json(config.to_hugging_face().to_string().as_bytes()), Ok(config));
            }
        }
    }

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
            assert_eq!(TransformerConfig::from_json(config.to_hugging_face().to_string().as_bytes()), Ok(config));
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
        let config = TransformerConfig::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(config.positions, Positions::Rotary { dims: 8, base: 500.0 });
        json["rope_parameters"]["rope_type"] = "yarn".into();
        assert!(TransformerConfig::from_json(json.to_string().as_bytes()).unwrap_err().contains("\"yarn\""));
    }
}
