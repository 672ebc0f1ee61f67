//! Reads activations from a safetensors file.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, AnyRank, HookPoint};
use rewire_input::{cut, read_regular, repeated_key};
use safetensors::{Dtype, SafeTensors};

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
    let bytes = read(path)?;
    let (header, _) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| anyhow!("{} is no safetensors file: {}", path.display(), cut(&e.to_string())))?;
    if let Some(name) = repeated_key(&bytes[8..][..header]) {
        bail!("{} names `{}` twice; remove one of the two tensors", path.display(), cut(&name));
    }
    let file = SafeTensors::deserialize(&bytes)?;
    let mut cache = ActivationCache::new();
    for (name, view) in file.tensors() {
        let at = || format!("{}, tensor `{}`", path.display(), cut(&name));
        let point: HookPoint = name.parse().with_context(at)?;
        let (shape, dtype) = (view.shape().to_vec(), view.dtype());
        if dtype != Dtype::F32 {
            bail!("{}: the dtype is {dtype:?}; store the tensor as float32", at());
        }
        if shape.len() != point.rank() {
            bail!(
                "{}: the tensor has {} dimensions, and its hook point has {}: {:?}",
                at(),
                shape.len(),
                point.rank(),
                point.axes()
            );
        }
        let numbers: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if let Some(at_number) = numbers.iter().position(|v| !v.is_finite()) {
            bail!("{}: number {at_number} is {}; all numbers must be finite", at(), numbers[at_number]);
        }
        if let HookPoint::Block { layer, .. } = point
            && layer >= n_layers
        {
            bail!("{}: the model has {n_layers} layers, counted from 0", at());
        }
        let data = TensorData::new(numbers, shape);
        cache = cache.with(point, AnyRank::from_data(data, device));
    }
    Ok(cache)
}
