//! The configuration of a transformer.

use rewire_hooks::{NormKind, Site};
use serde::{Deserialize, Serialize};

/// The model family. It decides the file layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Architecture {
    /// Sequential blocks, learned positions, tied unembedding.
    Gpt2,
    /// Parallel or sequential blocks, rotary positions, untied unembedding, as in Pythia.
    GptNeoX,
    /// Grouped-query attention, RMSNorm, gated MLP, rotary positions: Llama and SmolLM2.
    Llama,
    /// As Llama, with a sliding window.
    Mistral,
    /// As Llama, with biases on queries, keys and values: Qwen2 and Qwen2.5.
    Qwen2,
    /// As Llama, with norms on queries and keys.
    Qwen3,
    /// Norms before and after attention and MLP, soft caps, and a window in every second layer.
    Gemma2,
    /// As Gemma-2, with norms on queries and keys in place of soft caps, and other rotary angles in
    /// the layers with a window. Most layers have one.
    Gemma3,
    /// As Llama, with norms after attention and MLP instead of before, and norms over all queries
    /// and all keys.
    Olmo2,
    /// As Llama, without rotary positions in some layers.
    SmolLm3,
    /// As Llama, with a sliding window, and with fused matrices in the files.
    Phi3,
    /// Parallel blocks with one norm, rotary positions in adjacent pairs, untied unembedding with a
    /// bias.
    GptJ,
    /// Learned positions, scores that are not scaled, and a window in every second layer.
    GptNeo,
    /// Learned positions and ReLU.
    Opt,
}

impl Architecture {
    /// Every family.
    pub const ALL: [Self; 14] = [
        Self::Gpt2,
        Self::GptNeoX,
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Gemma3,
        Self::Olmo2,
        Self::SmolLm3,
        Self::Phi3,
        Self::GptJ,
        Self::GptNeo,
        Self::Opt,
    ];
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
    /// `x / (1 + exp(-x))`.
    Silu,
}

impl Activation {
    /// Every activation function.
    pub(crate) const ALL: [Self; 4] = [Self::Gelu, Self::GeluNew, Self::Relu, Self::Silu];
    /// Those of MLPs without a gate.
    pub(crate) const UNGATED: [Self; 3] = [Self::Gelu, Self::GeluNew, Self::Relu];
}

/// How an MLP computes its neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MlpKind {
    /// The activation function of one linear map.
    #[default]
    Plain,
    /// The activation function of one linear map, times another linear map.
    Gated,
}

/// How positions enter the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A learned position embedding, added to the token embedding.
    Learned,
    /// Queries and keys, rotated by an angle that grows with the position.
    Rotary {
        /// The number of leading dimensions of each head that are rotated, in pairs
        /// ([`RotaryPairs`]).
        dims: usize,
        /// The base of the angles: pair `i` turns by `position / base^(2 i / dims)`.
        base: f64,
    },
}

/// Which two dimensions of a head make a pair that rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotaryPairs {
    /// Pair `i` is `(i, i + dims / 2)`.
    #[default]
    Halves,
    /// Pair `i` is `(2 i, 2 i + 1)`.
    Adjacent,
}

/// The norms of queries and keys, before any rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryKeyNorms {
    /// There are none.
    #[default]
    None,
    /// One over the queries of each head, and one over the keys of each key/value head.
    EachHead,
    /// One over the queries of all heads together, and one over the keys of all key/value heads.
    AllHeads,
}

/// How rotary angles are stretched for a context that is longer than the one of the training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotaryScaling {
    /// Every angle is divided by `factor`.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: pairs that turn slowly are divided by `factor`, fast ones are kept, and those
    /// between are interpolated.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Pairs with less than this many turns in the original context are divided.
        low_turns: f64,
        /// Pairs with more than this many turns in the original context are kept.
        high_turns: f64,
        /// The original context, in positions.
        context: usize,
    },
}

/// A limit of how far back queries attend, in some layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlidingWindow {
    /// The number of keys that a query attends to, its own included.
    pub size: usize,
    /// The layers with this limit.
    pub layers: Vec<usize>,
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
    /// Key/value heads per block, if they are fewer than the attention heads. Head `h` attends to
    /// the keys and values of key/value head `h / (n_heads / key_value_heads)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_value_heads: Option<usize>,
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
    /// How the MLP computes its neurons.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mlp: MlpKind,
    /// The kind of all norms. RMSNorm has a gain and no bias.
    #[serde(default, skip_serializing_if = "is_default")]
    pub norm: NormKind,
    /// The epsilon inside the norms' square root.
    pub norm_eps: f64,
    /// Whether attention and MLP read the residual stream through a norm. Without it, they read the
    /// stream itself, and the scale of that norm is 1.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub pre_norms: bool,
    /// Whether the norm before the MLP is the one before attention, in parallel blocks. The files
    /// then hold it once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared_norm: bool,
    /// Whether the outputs of attention and MLP pass a norm before they are added to the residual
    /// stream.
    #[serde(default, skip_serializing_if = "is_default")]
    pub post_norms: bool,
    /// The norms of queries and keys.
    #[serde(default, skip_serializing_if = "is_default")]
    pub query_key_norms: QueryKeyNorms,
    /// How positions enter the model.
    pub positions: Positions,
    /// How rotary angles are stretched, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotary_scaling: Option<RotaryScaling>,
    /// Which dimensions rotate together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rotary_pairs: RotaryPairs,
    /// The base of rotary angles in layers with a sliding window, where angles are not stretched.
    /// `None` if those layers rotate as the others do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_rotary_base: Option<f64>,
    /// The layers that do not rotate queries and keys, in rotary models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrotated_layers: Vec<usize>,
    /// How far back some layers attend. `None` if all attend to the whole prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<SlidingWindow>,
    /// Whether the attention scores of layer `l` are also divided by `l + 1`
    /// (`scale_attn_by_inverse_layer_idx`, as in the GPT-2 models of stanford-crfm).
    #[serde(default, skip_serializing_if = "is_default")]
    pub scores_by_inverse_layer: bool,
    /// The number whose square root divides the attention scores, if it is not `d_head`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_scalar: Option<f64>,
    /// The bound `c` of attention scores `s`, which become `c tanh(s / c)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_cap: Option<f64>,
    /// The bound `c` of logits `x`, which become `c tanh(x / c)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_cap: Option<f64>,
    /// The number that multiplies the token embedding, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_scale: Option<f64>,
    /// Whether attention has biases. Without them, the biases of queries, keys, values and of the
    /// attention output are zeros, and the files do not hold them.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub attention_bias: bool,
    /// Whether queries, keys and values have biases, if attention has biases.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub attention_input_bias: bool,
    /// Whether the attention output has a bias, if attention has biases.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub attention_output_bias: bool,
    /// Whether the MLP has biases. Without them, they are zeros, and the files do not hold them.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub mlp_bias: bool,
    /// Whether attention and MLP both read `resid_pre`. Such blocks have no `resid_mid`.
    pub parallel_block: bool,
    /// Whether the unembedding has a bias in the files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unembedding_bias: bool,
    /// Whether the unembedding is the transposed token embedding in the files. Processing unties
    /// it.
    pub tied_unembedding: bool,
    /// The BOS token, if the model has one. Rewire puts it in front of text that it tokenizes.
    pub bos_token: Option<u32>,
}

impl TransformerConfig {
    /// Returns the number of key/value heads per block.
    #[must_use]
    pub fn n_key_value_heads(&self) -> usize {
        self.key_value_heads.unwrap_or(self.n_heads)
    }

    /// Returns the number of heads that share a key/value head; 1 without grouped-query attention.
    #[must_use]
    pub fn heads_per_key_value_head(&self) -> usize {
        self.n_heads / self.n_key_value_heads().max(1)
    }

    /// Returns the number of heads of the activation at a site: key/value heads for keys and
    /// values, and attention heads for all others.
    #[must_use]
    pub fn heads_at(&self, site: Site) -> usize {
        match site {
            Site::K | Site::RotK | Site::V => self.n_key_value_heads(),
            _ => self.n_heads,
        }
    }

    /// Returns the number of keys that a query of block `layer` attends to, its own included;
    /// `None` if it attends to all earlier ones.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.as_ref().filter(|window| window.layers.contains(&layer)).map(|window| window.size)
    }

    /// Returns the number that attention scores of block `layer` are divided by: `sqrt(d_head)`, or
    /// the root of [`score_scalar`](Self::score_scalar), times `layer + 1` if the model scales them
    /// by the inverse layer.
    #[must_use]
    pub fn score_divisor(&self, layer: usize) -> f64 {
        let root = self.score_scalar.unwrap_or(self.d_head as f64).sqrt();
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
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn yes() -> bool {
    true
}
