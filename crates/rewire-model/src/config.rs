//! The shape of a transformer.

use rewire_hooks::Site;
use serde::{Deserialize, Serialize};

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
}
