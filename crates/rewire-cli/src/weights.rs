//! Chooses where the weights of a model are: in memory as float32, or in their files.

use anyhow::bail;
use clap::ValueEnum;
use rewire_model::{ModelFiles, TransformerConfig, WeightStorage};

use crate::device::Device;
use crate::system_memory;

/// The value of `--weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsChoice {
    Auto,
    Float32,
    Stored,
}

impl WeightsChoice {
    /// Returns where the weights of these files are, for a device.
    pub(crate) fn storage(
        self,
        device: Device,
        files: &ModelFiles,
        config: &TransformerConfig,
    ) -> anyhow::Result<WeightStorage> {
        let on_gpu = matches!(device, Device::Cuda(_));
        match self {
            WeightsChoice::Stored if on_gpu => {
                bail!("--weights stored converts weights on the CPU; remove it for --device {device}")
            }
            WeightsChoice::Stored => Ok(WeightStorage::Stored),
            WeightsChoice::Float32 => Ok(WeightStorage::Float32),
            WeightsChoice::Auto => {
                let can_stay = !on_gpu && files.can_stay_stored();
                let is_too_large = system_memory::available().is_some_and(|left| exceeds(config, left));
                Ok(if can_stay && is_too_large { WeightStorage::Stored } else { WeightStorage::Float32 })
            }
        }
    }
}

/// Returns whether a model's weights take more than three quarters of `left` bytes as float32. The
/// rest is for activations.
fn exceeds(config: &TransformerConfig, left: u64) -> bool {
    4 * config.weight_count() > left / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_models_stay_in_their_files() {
        let gpt2 = TransformerConfig::gpt2(12, 12, 768, 50_257, 1024);
        assert!(!exceeds(&gpt2, 1 << 30));
        assert!(exceeds(&gpt2, 1 << 29));
    }
}
