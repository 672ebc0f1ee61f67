//! Flags for the precision of a command and for the memory that it may use.

use anyhow::bail;
use bytesize::ByteSize;
use clap::Args;
use rewire_analysis::integrated::DEFAULT_TOLERANCE;
use rewire_tensor::{MatmulPrecision, Precision};
use serde_json::{Value, json};

use crate::device::Device;
use crate::headings::COMPUTE;

/// The precision of weights, activations and matmuls.
#[derive(Args, Clone, Copy)]
pub(crate) struct NumberArguments {
    /// Precision of weights and activations.
    ///
    /// bf16 takes half the memory and has 8 significant bits. Norms, softmax, logits and metrics
    /// are float32 in both cases.
    #[arg(long, value_name = "f32|bf16", default_value = "f32", help_heading = COMPUTE)]
    pub(crate) dtype: Precision,
    /// Round the factors in float32 matmuls to TF32, on NVIDIA GPUs.
    ///
    /// TF32 has 11 significant bits and is faster.
    #[arg(long, help_heading = COMPUTE)]
    pub(crate) tf32: bool,
}

impl Default for NumberArguments {
    /// float32.
    fn default() -> Self {
        Self { dtype: Precision::Float32, tf32: false }
    }
}

impl NumberArguments {
    /// Refuses a precision that the device does not support.
    pub(crate) fn check(&self, device: Device) -> anyhow::Result<()> {
        if self.tf32 && !matches!(device, Device::Cuda(_)) {
            bail!("--tf32 works on NVIDIA GPUs only; remove it for --device {device}");
        }
        if self.dtype == Precision::BFloat16 && device == Device::NdArray {
            bail!("--dtype bf16: --device ndarray does not support bfloat16; use --device flex or --dtype f32");
        }
        Ok(())
    }

    /// Returns the default tolerance of integrated gradients. It is larger for shorter numbers,
    /// because rounding limits how exactly the attributions sum to the change of the metric.
    pub(crate) fn tolerance(&self) -> f64 {
        if self.are_short() { 0.1 } else { DEFAULT_TOLERANCE }
    }

    /// Returns the precision of float32 matmuls.
    pub(crate) fn products(&self) -> MatmulPrecision {
        if self.tf32 { MatmulPrecision::Tf32 } else { MatmulPrecision::Float32 }
    }

    /// Returns whether anything is computed in less than float32.
    pub(crate) fn are_short(&self) -> bool {
        self.tf32 || self.dtype != Precision::Float32
    }

    /// Returns the precision in words, for the head of a report.
    pub(crate) fn summary(&self) -> String {
        match (self.dtype, self.products()) {
            (Precision::Float32, MatmulPrecision::Float32) => "float32".to_owned(),
            (Precision::Float32, MatmulPrecision::Tf32) => "float32, matmuls in tf32".to_owned(),
            (Precision::BFloat16, MatmulPrecision::Float32) => "bfloat16 weights and activations".to_owned(),
            (Precision::BFloat16, MatmulPrecision::Tf32) => {
                "bfloat16 weights and activations, float32 matmuls in tf32".to_owned()
            }
        }
    }

    /// Returns the precision, for `effects.json`.
    pub(crate) fn describe(&self) -> Value {
        json!({ "weights_and_activations": self.dtype, "products_of_float32": self.products() })
    }
}

/// The memory that a command may use.
#[derive(Args, Default)]
pub(crate) struct MemoryArguments {
    /// Memory limit for activations and passes, such as 8GiB.
    ///
    /// By default, the limit is the free memory of a GPU. On the CPU, batch sizes are the same on
    /// every machine.
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = COMPUTE)]
    pub(crate) memory_budget: Option<u64>,
}

/// Parses a number of bytes with a unit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "it is no size; give a number and a unit, such as 8GiB".to_owned())?;
    match size.as_u64() {
        0 => Err("must be more than 0".to_owned()),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn byte_sizes_parse_with_units() {
        assert_eq!(size("8GiB"), Ok(8 << 30));
        assert_eq!(size("512 MB"), Ok(512_000_000));
        assert!(size("0").is_err() && size("much").unwrap_err().contains("8GiB"));
    }
}
