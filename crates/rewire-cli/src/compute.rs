//! Flags for the numbers that a command computes in and the memory that it may use.

use anyhow::bail;
use bytesize::ByteSize;
use clap::Args;
use rewire_analysis::integrated::DEFAULT_TOLERANCE;
use rewire_tensor::{MatmulPrecision, Precision};
use serde_json::{Value, json};

use crate::device::Device;

/// The numbers that are computed with.
#[derive(Args, Clone, Copy)]
pub(crate) struct NumberArguments {
    /// What weights and activations are held in: f32, or bf16, which takes half the memory and has 8 bits; norms, softmax, logits and
    /// metrics are float32 in both cases.
    #[arg(long, value_name = "f32|bf16", default_value = "f32")]
    pub(crate) dtype: Precision,
    /// On an NVIDIA GPU: round the factors of float32 matmuls to the 11 bits of TF32, which is faster.
    #[arg(long)]
    pub(crate) tf32: bool,
}

impl Default for NumberArguments {
    /// float32.
    fn default() -> Self {
        Self { dtype: Precision::Float32, tf32: false }
    }
}

impl NumberArguments {
    /// Refuses numbers that the device does not have.
    pub(crate) fn check(&self, device: Device) -> anyhow::Result<()> {
        if self.tf32 && !matches!(device, Device::Cuda(_)) {
            bail!("--tf32 works on NVIDIA GPUs only; leave it out for --device {device}");
        }
        if self.dtype == Precision::BFloat16 && device == Device::NdArray {
            bail!("--dtype bf16: --device ndarray has no such numbers");
        }
        Ok(())
    }

    /// What integrated gradients may miss the metric's change by: those of shorter numbers do not sum more exactly than they are.
    pub(crate) fn tolerance(&self) -> f64 {
        if self.are_short() { 0.1 } else { DEFAULT_TOLERANCE }
    }

    pub(crate) fn products(&self) -> MatmulPrecision {
        if self.tf32 { MatmulPrecision::Tf32 } else { MatmulPrecision::Float32 }
    }

    /// Whether anything is computed in less than float32.
    pub(crate) fn are_short(&self) -> bool {
        self.tf32 || self.dtype != Precision::Float32
    }

    /// In words, for the head of a report.
    pub(crate) fn told(&self) -> String {
        match (self.dtype, self.products()) {
            (Precision::Float32, MatmulPrecision::Float32) => "float32".to_owned(),
            (Precision::Float32, MatmulPrecision::Tf32) => "float32, products in tf32".to_owned(),
            (Precision::BFloat16, MatmulPrecision::Float32) => "bfloat16 weights and activations".to_owned(),
            (Precision::BFloat16, MatmulPrecision::Tf32) => {
                "bfloat16 weights and activations, other products in tf32".to_owned()
            }
        }
    }

    /// The same for effects.json.
    pub(crate) fn describe(&self) -> Value {
        json!({ "weights_and_activations": self.dtype, "products_of_float32": self.products() })
    }
}

/// How much memory may be taken.
#[derive(Args, Default)]
pub(crate) struct MemoryArguments {
    /// Most memory for activations and passes, such as 8GiB; without it what is free on a GPU, and on the CPU sizes that are the same on
    /// every machine.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_budget: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|e| format!("{e}; a size is a number and a unit, such as 8GiB"))?;
    match size.as_u64() {
        0 => Err("must be more than 0".to_owned()),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("8GiB"), Ok(8 << 30));
        assert_eq!(size("512 MB"), Ok(512_000_000));
        assert!(size("0").is_err() && size("much").unwrap_err().contains("8GiB"));
    }
}
