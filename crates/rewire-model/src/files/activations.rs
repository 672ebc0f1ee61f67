//! Reads activations from a safetensors file.

use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, AnyRank, HookPoint};
use rewire_input::{cut, repeated_key};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Why a file of activations was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationsError {
    /// The bytes are no safetensors file.
    #[error("{path} is no safetensors file: {reason}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The reader's error message.
        reason: String,
    },
    /// The file names a tensor twice.
    #[error("{path} names `{}` twice; remove one of the two tensors", cut(name))]
    RepeatedTensor {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A tensor is no activation of the model.
    #[error("{path}, tensor `{}`: {reason}", cut(name))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The value that is wrong.
        reason: String,
    },
}

/// Reads float32 activations by hook name (`blocks.3.attn.hook_z`) from the contents of a
/// safetensors file. Errors name the file `path`.
///
/// Each activation must have the rank of its hook point and only finite numbers. Its layer must be
/// one of the `n_layers` layers of the model.
///
/// # Errors
/// [`ActivationsError`], which names the file and the tensor.
pub fn read_activations<B: Backend>(
    bytes: &[u8],
    path: &Path,
    n_layers: usize,
    device: &B::Device,
) -> Result<ActivationCache<B>, ActivationsError> {
    let unreadable = |error: safetensors::SafeTensorError| ActivationsError::Safetensors {
        path: path.into(),
        reason: cut(&error.to_string()),
    };
    let (header, _) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    if let Some(name) = repeated_key(&bytes[8..][..header]) {
        return Err(ActivationsError::RepeatedTensor { path: path.into(), name });
    }
    let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let mut views = file.tensors();
    // The reader's order changes from run to run, and errors must not.
    views.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut cache = ActivationCache::new();
    for (name, view) in views {
        match activation(&name, &view, n_layers) {
            Ok((point, data)) => cache = cache.with(point, AnyRank::from_data(data, device)),
            Err(reason) => return Err(ActivationsError::Tensor { path: path.into(), name, reason }),
        }
    }
    Ok(cache)
}

/// Returns the hook point and the values of one tensor, or the reason why it is no activation.
fn activation(name: &str, view: &TensorView<'_>, n_layers: usize) -> Result<(HookPoint, TensorData), String> {
    let point: HookPoint = name.parse().map_err(|error: rewire_hooks::ParseHookPointError| error.to_string())?;
    let (shape, dtype) = (view.shape(), view.dtype());
    if dtype != Dtype::F32 {
        return Err(format!("the dtype is {dtype:?}; store the tensor as float32"));
    }
    if shape.len() != point.rank() {
        return Err(format!(
            "the tensor has {} dimensions, and its hook point has {}: {:?}",
            shape.len(),
            point.rank(),
            point.axes()
        ));
    }
    // The other sizes of an empty tensor may be so large that their product overflows.
    if shape.contains(&0) {
        return Err(format!("the tensor has the shape {shape:?} and no numbers"));
    }
    let numbers: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if let Some(at) = numbers.iter().position(|v| !v.is_finite()) {
        return Err(format!("number {at} is {}; all numbers must be finite", numbers[at]));
    }
    match point {
        HookPoint::Block { layer, .. } if layer >= n_layers => {
            Err(format!("the model has {n_layers} layers, counted from 0"))
        }
        _ => Ok((point, TensorData::new(numbers, shape.to_vec()))),
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn read(header: &str, data: &[u8]) -> Result<ActivationCache<Flex>, ActivationsError> {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        read_activations(&bytes, Path::new("given"), 1, &Default::default())
    }

    #[test]
    fn an_activation_is_read_by_its_hook_name() {
        let header = r#"{"hook_embed":{"dtype":"F32","shape":[1,1,2],"data_offsets":[0,8]}}"#;
        let cache = read(header, &[0; 8]).unwrap();
        assert_eq!(cache.dims(HookPoint::Embed), Some(vec![1, 1, 2]));
    }

    #[test]
    fn an_empty_tensor_of_any_shape_is_refused() {
        for shape in ["[0,1,2]", "[0,1099511627776,1099511627776]"] {
            let header = format!(r#"{{"hook_embed":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
            let refused = read(&header, &[]).unwrap_err().to_string();
            assert!(refused.contains("given, tensor `hook_embed`") && refused.contains("no numbers"), "{refused}");
        }
    }
}
