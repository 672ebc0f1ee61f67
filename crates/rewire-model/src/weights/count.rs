//! How many numbers a model's weights are.

use crate::config::TransformerConfig;
use crate::files::layout;
use crate::weights::weight_name::{BLOCK_PARTS, WeightName};

/// The largest count. The sizes of a damaged configuration may have products of more than 64 bits.
const MOST: u64 = 1 << 48;

impl TransformerConfig {
    /// Returns the number of weights of a model of this configuration, as its files hold them. A
    /// tied unembedding does not count.
    #[must_use]
    pub fn weight_count(&self) -> u64 {
        let outside = [WeightName::WE, WeightName::WPos, WeightName::FinalGain, WeightName::FinalBias, WeightName::WU];
        let sum = |parts: &[WeightName]| parts.iter().map(|part| self.count(*part)).fold(0, u64::saturating_add);
        let in_blocks = sum(&BLOCK_PARTS).saturating_mul(self.n_layers as u64);
        sum(&outside).saturating_add(in_blocks).min(MOST)
    }

    /// Returns the number of weights of the largest matrix of a block.
    #[must_use]
    pub fn largest_matrix(&self) -> u64 {
        let matrices = [WeightName::WQkv, WeightName::WO, WeightName::WGate, WeightName::WIn, WeightName::WOut];
        matrices.into_iter().map(|part| self.count(part)).max().unwrap_or_default()
    }

    /// Returns the number of weights of the token embedding.
    #[must_use]
    pub fn embedding_count(&self) -> u64 {
        self.count(WeightName::WE)
    }

    fn count(&self, part: WeightName) -> u64 {
        match layout::is_stored(self, part) {
            true => {
                layout::shape(self, part).into_iter().fold(1, |n: u64, size| n.saturating_mul(size as u64)).min(MOST)
            }
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_known_models_are_counted() {
        assert_eq!(TransformerConfig::gpt2(12, 12, 768, 50_257, 1024).weight_count(), 124_439_808);
        let llama = TransformerConfig {
            key_value_heads: Some(8),
            d_mlp: 14_336,
            tied_unembedding: false,
            ..TransformerConfig::llama(32, 32, 4096, 128_256, 131_072)
        };
        assert_eq!(llama.weight_count(), 8_030_261_248);
        assert_eq!(llama.largest_matrix(), 4096 * 14_336);
        assert_eq!(llama.embedding_count(), 128_256 * 4096);
    }
}
