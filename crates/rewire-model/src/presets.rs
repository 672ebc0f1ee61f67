//! Configurations of given sizes: those of the main families, and a small one of each family.

use rewire_hooks::NormKind;

use crate::config::{
    Activation, Architecture, MlpKind, Positions, QueryKeyNorms, RotaryPairs, RotaryScaling, SlidingWindow,
    TransformerConfig,
};

impl TransformerConfig {
    /// Returns a GPT-2 configuration of the given size, with `d_head = d_model / n_heads` and
    /// `d_mlp = 4 d_model`.
    #[must_use]
    pub fn gpt2(n_layers: usize, n_heads: usize, d_model: usize, d_vocab: usize, n_ctx: usize) -> Self {
        Self {
            architecture: Architecture::Gpt2,
            n_layers,
            n_heads,
            key_value_heads: None,
            d_model,
            d_head: d_model / n_heads,
            d_mlp: 4 * d_model,
            d_vocab,
            n_ctx,
            activation: Activation::GeluNew,
            mlp: MlpKind::Plain,
            norm: NormKind::Layer,
            norm_eps: 1e-5,
            pre_norms: true,
            shared_norm: false,
            post_norms: false,
            query_key_norms: QueryKeyNorms::None,
            positions: Positions::Learned,
            rotary_scaling: None,
            rotary_pairs: RotaryPairs::Halves,
            local_rotary_base: None,
            unrotated_layers: Vec::new(),
            sliding_window: None,
            scores_by_inverse_layer: false,
            score_scalar: None,
            score_cap: None,
            logit_cap: None,
            embedding_scale: None,
            attention_bias: true,
            attention_input_bias: true,
            attention_output_bias: true,
            mlp_bias: true,
            parallel_block: false,
            unembedding_bias: false,
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

    /// Returns a Llama configuration of the given size: as many key/value heads as heads, rotary
    /// positions on the whole head, and no biases. The other families are variants of it.
    #[must_use]
    pub fn llama(n_layers: usize, n_heads: usize, d_model: usize, d_vocab: usize, n_ctx: usize) -> Self {
        Self {
            architecture: Architecture::Llama,
            activation: Activation::Silu,
            mlp: MlpKind::Gated,
            norm: NormKind::Rms,
            norm_eps: 1e-6,
            positions: Positions::Rotary { dims: d_model / n_heads, base: 10_000.0 },
            attention_bias: false,
            mlp_bias: false,
            tied_unembedding: false,
            ..Self::gpt2(n_layers, n_heads, d_model, d_vocab, n_ctx)
        }
    }

    /// Returns a GPT-J configuration of the given size: parallel blocks with one norm, and rotary
    /// positions in adjacent pairs on half of each head.
    #[must_use]
    pub fn gptj(n_layers: usize, n_heads: usize, d_model: usize, d_vocab: usize, n_ctx: usize) -> Self {
        Self {
            architecture: Architecture::GptJ,
            activation: Activation::GeluNew,
            shared_norm: true,
            // Dimensions are rotated in pairs, so their number is even.
            positions: Positions::Rotary { dims: d_model / n_heads / 4 * 2, base: 10_000.0 },
            rotary_pairs: RotaryPairs::Adjacent,
            attention_bias: false,
            unembedding_bias: true,
            ..Self::neox(n_layers, n_heads, d_model, d_vocab, n_ctx)
        }
    }

    /// Returns a small configuration of a family with every feature that the family has, for tests
    /// and examples: two layers, four heads, a context of 24 and a vocabulary of 19. Where a family
    /// has them, two key/value heads, and windows of 3 keys.
    #[must_use]
    pub fn tiny(family: Architecture) -> Self {
        let (n_layers, n_heads, d_model, d_vocab, n_ctx) = (2, 4, 32, 19, 24);
        let gpt2 = Self::gpt2(n_layers, n_heads, d_model, d_vocab, n_ctx);
        let llama = Self {
            architecture: family,
            key_value_heads: Some(2),
            d_mlp: 48,
            ..Self::llama(n_layers, n_heads, d_model, d_vocab, n_ctx)
        };
        let wide = Self { d_head: 12, positions: Positions::Rotary { dims: 12, base: 10_000.0 }, ..llama.clone() };
        match family {
            Architecture::Gpt2 => gpt2,
            Architecture::GptNeoX => Self::neox(n_layers, n_heads, d_model, d_vocab, n_ctx),
            Architecture::Llama => Self {
                rotary_scaling: Some(RotaryScaling::Llama3 {
                    factor: 8.0,
                    low_turns: 1.0,
                    high_turns: 4.0,
                    context: 16,
                }),
                ..llama
            },
            Architecture::Mistral => {
                Self { sliding_window: Some(SlidingWindow { size: 3, layers: vec![0, 1] }), ..llama }
            }
            Architecture::Qwen2 => {
                Self { attention_bias: true, attention_output_bias: false, tied_unembedding: true, ..llama }
            }
            Architecture::Qwen3 => Self { query_key_norms: QueryKeyNorms::EachHead, ..wide },
            Architecture::Gemma2 => Self {
                activation: Activation::GeluNew,
                post_norms: true,
                sliding_window: Some(SlidingWindow { size: 3, layers: vec![0] }),
                score_scalar: Some(10.0),
                score_cap: Some(3.0),
                logit_cap: Some(4.0),
                embedding_scale: Some((d_model as f64).sqrt()),
                tied_unembedding: true,
                ..wide
            },
            Architecture::Gemma3 => Self {
                activation: Activation::GeluNew,
                post_norms: true,
                query_key_norms: QueryKeyNorms::EachHead,
                sliding_window: Some(SlidingWindow { size: 3, layers: vec![0] }),
                rotary_scaling: Some(RotaryScaling::Linear { factor: 8.0 }),
                local_rotary_base: Some(100.0),
                score_scalar: Some(10.0),
                embedding_scale: Some((d_model as f64).sqrt()),
                tied_unembedding: true,
                ..wide
            },
            Architecture::Olmo2 => {
                Self { pre_norms: false, post_norms: true, query_key_norms: QueryKeyNorms::AllHeads, ..llama }
            }
            Architecture::SmolLm3 => Self { unrotated_layers: vec![1], tied_unembedding: true, ..llama },
            Architecture::Phi3 => Self { sliding_window: Some(SlidingWindow { size: 3, layers: vec![0, 1] }), ..llama },
            Architecture::GptJ => Self::gptj(n_layers, n_heads, d_model, d_vocab, n_ctx),
            Architecture::GptNeo => Self {
                architecture: Architecture::GptNeo,
                sliding_window: Some(SlidingWindow { size: 3, layers: vec![1] }),
                score_scalar: Some(1.0),
                attention_input_bias: false,
                ..gpt2
            },
            Architecture::Opt => Self { architecture: Architecture::Opt, activation: Activation::Relu, ..gpt2 },
        }
    }
}
