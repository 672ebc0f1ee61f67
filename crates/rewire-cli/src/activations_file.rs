//! Reads activations from a safetensors file.

use std::path::Path;

use anyhow::Context;
use burn::tensor::backend::Backend;
use rewire_hooks::ActivationCache;
use rewire_input::read_regular;

/// Upper bound on the size of a file of activations, in bytes.
const MOST_BYTES: u64 = 16 << 30;

/// Reads the bytes of a file of activations.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    read_regular(path, MOST_BYTES).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads float32 activations by hook name (`blocks.3.attn.hook_z`), each with the rank of its hook
/// point.
///
/// # Errors
/// If the file is no safetensors file, names a tensor twice, or holds a tensor that is no
/// activation of a model with `n_layers` layers.
pub(crate) fn read_activations<B: Backend>(
    path: &Path,
    n_layers: usize,
    device: &B::Device,
) -> anyhow::Result<ActivationCache<B>> {
    Ok(rewire_model::read_activations(&read(path)?, path, n_layers, device)?)
}
