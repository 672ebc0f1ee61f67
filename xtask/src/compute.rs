//! In what numbers a command computes and how much memory it may take: flags, and what they come to.

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::bail;
use burn::tensor::backend::Backend;
use bytesize::ByteSize;
use clap::Args;
use rewire_analysis::{Halved, Options};
use rewire_device::{Precision, Products, set_products};
use rewire_model::Transformer;
use serde_json::{Value, json};

use crate::device::Device;

/// The numbers that are computed with.
#[derive(Args)]
pub(crate) struct NumberArguments {
    /// What weights and activations are held in: f32, or bf16, which takes half the memory and has 8 bits; norms, softmax, logits and
    /// metrics are of float32 either way.
    #[arg(long, value_name = "f32|bf16", default_value = "f32")]
    pub(crate) dtype: Precision,
    /// On an NVIDIA GPU: let products of float32 round their factors to the 11 bits of TF32, which is faster.
    #[arg(long)]
    pub(crate) tf32: bool,
}

impl NumberArguments {
    /// Sets how products are computed; refuses what the device has not.
    pub(crate) fn apply(&self, device: Device) -> anyhow::Result<()> {
        let device = device.resolve();
        if self.tf32 && !matches!(device, Device::Cuda(_)) {
            bail!("--tf32 is of NVIDIA GPUs: the products of --device {device} are of float32");
        }
        set_products(self.products());
        Ok(())
    }

    pub(crate) fn products(&self) -> Products {
        if self.tf32 { Products::Tf32 } else { Products::Float32 }
    }

    /// Whether anything is computed in less than float32.
    pub(crate) fn are_short(&self) -> bool {
        self.tf32 || self.dtype != Precision::Float32
    }

    /// In words, for the head of a report.
    pub(crate) fn told(&self) -> String {
        match (self.dtype, self.products()) {
            (Precision::Float32, Products::Float32) => "float32".to_owned(),
            (Precision::Float32, Products::Tf32) => "float32, products in tf32".to_owned(),
            (Precision::BFloat16, _) => "bfloat16 weights and activations".to_owned(),
        }
    }

    /// The same for effects.json.
    pub(crate) fn describe(&self) -> Value {
        json!({ "weights_and_activations": self.dtype, "products_of_float32": self.products() })
    }
}

/// How much memory may be taken.
#[derive(Args)]
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

/// What the command line says of memory: one command runs in a process.
static BUDGET: OnceLock<u64> = OnceLock::new();

/// Every time that memory ran out.
static HALVED: Mutex<Vec<Halved>> = Mutex::new(Vec::new());

impl MemoryArguments {
    /// From now on [`options`] keep to it.
    pub(crate) fn apply(&self) {
        if let Some(budget) = self.memory_budget {
            let _ = BUDGET.set(budget);
        }
    }
}

/// The options that every analysis of a command begins with, for prompts of `pos` tokens: as much at once as there is memory for.
pub(crate) fn options<B: Backend>(model: &Transformer<B>, pos: usize) -> Options<'static> {
    Options { notice: &note, ..Options::default() }.fitted(model, pos, BUDGET.get().copied())
}

fn note(halved: &Halved) {
    eprintln!("{halved}");
    HALVED.lock().unwrap_or_else(PoisonError::into_inner).push(halved.clone());
}

/// What [`options`] were told of memory that ran out, in words.
pub(crate) fn halved() -> Vec<String> {
    HALVED.lock().unwrap_or_else(PoisonError::into_inner).iter().map(ToString::to_string).collect()
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
