//! The configuration of a transformer.

use rewire_hooks::Site;
use serde::{Deserialize, Serialize};

/// The model family. It decides the file layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Sequential blocks, learned positions, tied unembedding.
    Gpt2,
    /// Parallel or sequential blocks, rotary positions, untied unembedding, as in Pythia.
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
    /// A learned position embedding, added to the token embedding.
    Learned,
    /// Queries and keys, rotated by an angle that grows with the position.
    Rotary {
        /// The number of leading dimensions of each head that are rotated, in half-split pairs
        /// `(i, i + dims / 2)`.
        dims: usize,
        /// The base of the angles: pair `i` turns by `position / base^(2 i / dims)`.
        base: f64,
    },
}

/// The configuration of a [`Transformer`](crate::Transformer): its sizes and options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransformerConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads per block.
    pub n_heads: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of a head.
    pub d_head: usize,
    /// MLP neurons per block.
    pub d_mlp: usize,
    /// Vocabulary size.
    pub d_vocab: usize,
    /// The maximum number of positions (the context).
    pub n_ctx: usize,
    /// The MLP's activation function.
    pub activation: Activation,
    /// The epsilon inside the norms' square root.
    pub norm_eps: f64,
    /// How positions enter the model.
    pub positions: Positions,
    /// Whether the attention scores of layer `l` are also divided by `l + 1`
    /// (`scale_attn_by_inverse_layer_idx`, as in the GPT-2 models of stanford-crfm).
    #[serde(default, skip_serializing_if = "is_false")]
    pub scores_by_inverse_layer: bool,
    /// Whether attention has biases. Without them, the biases of queries, keys, values and of the
    /// attention output are zeros, and the files do not hold them.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub attention_bias: bool,
    /// Whether attention and MLP both read `resid_pre`. Such blocks have no `resid_mid`.
    pub parallel_block: bool,
    /// Whether the unembedding is the transposed token embedding in the files. Processing unties
    /// it.
    pub tied_unembedding: bool,
    /// The BOS token, if the model has one. Rewire puts it in front of text that it tokenizes.
    pub bos_token: Option<u32>,
}

impl TransformerConfig {
    /// Returns a GPT-2 configuration of the given size, with `d_head = d_model / n_heads` and
    /// `d_mlp = 4 d_model`.
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
            scores_by_inverse_layer: false,
            attention_bias: true,
            parallel_block: false,
            tied_unembedding: true,
            bos_token: None,
        }
    }

    /// Returns a GPT-NeoX configuration of the given size, as in Pythia: parallel blocks, and
    /// rotary positions on a quarter of each head.
    #[must_use]
    pub fn neox(n_layers: usize, n_heads: usize, d_model: usize, d_vocab: usize, n_ctx: usize) -> Self {
        let d_head = d_model / n_heads;
        Self {
            architecture: Architecture::GptNeoX,
            activation: Activation::Gelu,
            // Dimensions are rotated in pairs, so their number is even.
            positions: Positions::Rotary { dims: d_head / 8 * 2, base: 10_000.0 },
            parallel_block: true,
            tied_unembedding: false,
            ..Self::gpt2(n_layers, n_heads, d_model, d_vocab, n_ctx)
        }
    }

    /// Returns the number that attention scores of block `layer` are divided by: `sqrt(d_head)`,
    /// times `layer + 1` if the model scales them by the inverse layer.
    #[must_use]
    pub fn score_divisor(&self, layer: usize) -> f64 {
        let root = (self.d_head as f64).sqrt();
        if self.scores_by_inverse_layer { root * (layer + 1) as f64 } else { root }
    }

    /// Returns the hook site of the keys that attention uses. They are rotated in rotary models.
    #[must_use]
    pub fn key_site(&self) -> Site {
        if self.is_rotary() { Site::RotK } else { Site::K }
    }

    /// Returns whether queries and keys are rotated.
    #[must_use]
    pub fn is_rotary(&self) -> bool {
        matches!(self.positions, Positions::Rotary { .. })
    }
}

// Descriptions of a configuration leave these fields out at their defaults, so that they stay the
// same for models that existed before the fields.
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn yes() -> bool {
    true
}
