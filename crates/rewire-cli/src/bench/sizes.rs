//! The models that are timed: shapes of known models, with random weights.

use burn::tensor::backend::Backend;
use clap::ValueEnum;
use rewire_model::{Activation, Positions, Transformer, TransformerConfig};
use serde_json::{Value, json};

/// A shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// 4 layers of 4 heads, 64 wide: to see that everything works.
    Tiny,
    /// 12 layers of 12 heads, 768 wide.
    Gpt2Small,
    /// 48 layers of 25 heads, 1600 wide.
    Gpt2Xl,
    /// 32 layers of 32 heads, 2560 wide, of GPT-NeoX's architecture.
    #[value(name = "pythia-2.8b")]
    Pythia2_8b,
}

impl Size {
    pub(crate) fn config(self) -> TransformerConfig {
        match self {
            Size::Tiny => TransformerConfig::gpt2(4, 4, 64, 1000, 64),
            Size::Gpt2Small => TransformerConfig::gpt2(12, 12, 768, 50_257, 1024),
            Size::Gpt2Xl => TransformerConfig::gpt2(48, 25, 1600, 50_257, 1024),
            Size::Pythia2_8b => TransformerConfig::neox(32, 32, 2560, 50_304, 2048),
        }
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether the peer gets the very weights, by a file; of the large ones it makes its own, since files of many gigabytes would take
    /// longer than what is timed.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Size::Tiny | Size::Gpt2Small)
    }

    /// Random weights: the same on every machine for the sizes that are shared, and made on the device for the others.
    pub(crate) fn model<B: Backend>(self, seed: u64, device: &B::Device) -> Transformer<B> {
        match self.is_shared() {
            true => Transformer::random(&self.config(), seed, device),
            false => Transformer::random_on_device(&self.config(), seed, device),
        }
    }

    /// The shape, for a peer that makes weights of its own.
    pub(crate) fn describe(self) -> Value {
        let config = self.config();
        json!({
            "n_layers": config.n_layers, "n_heads": config.n_heads, "d_model": config.d_model, "d_head": config.d_head,
            "d_mlp": config.d_mlp, "d_vocab": config.d_vocab, "n_ctx": config.n_ctx, "eps": config.norm_eps,
            "gelu": if config.activation == Activation::GeluNew { "gelu_new" } else { "gelu" },
            "rotary_dim": match config.positions { Positions::Rotary { dims, .. } => dims, Positions::Learned => 0 },
            "parallel": config.parallel_block,
        })
    }
}
