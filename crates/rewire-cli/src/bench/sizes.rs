//! The models to time: shapes of known models, with random weights.

use burn::tensor::backend::Backend;
use clap::ValueEnum;
use rewire_model::{Activation, Positions, Transformer, TransformerConfig};
use serde_json::{Value, json};

/// The shape of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// 4 layers of 4 heads, d_model 64, for a quick check of the program.
    Tiny,
    /// 12 layers of 12 heads, d_model 768.
    Gpt2Small,
    /// 48 layers of 25 heads, d_model 1600.
    Gpt2Xl,
    /// 32 layers of 32 heads, d_model 2560, in the GPT-NeoX architecture.
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

    /// Returns whether the peer reads the same weights from a file. For the large sizes the peer
    /// makes random weights of its own: writing a file of many gigabytes would take longer than the
    /// works.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Size::Tiny | Size::Gpt2Small)
    }

    /// Returns a model with random weights. Shared sizes have the same weights on every machine.
    /// The weights of the other sizes are generated on the device.
    pub(crate) fn model<B: Backend>(self, seed: u64, device: &B::Device) -> Transformer<B> {
        match self.is_shared() {
            true => Transformer::random(&self.config(), seed, device),
            false => Transformer::random_on_device(&self.config(), seed, device),
        }
    }

    /// Returns the shape, for a peer that makes its own weights.
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
