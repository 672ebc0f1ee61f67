//! Model directories made for a test: a fixture's tensors, changed, sharded or damaged.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor as a file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Stored>;

/// The tensors of a safetensors file.
pub fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a whole file");
    let stored = |view: TensorView<'_>| Stored {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect()
}

/// Writes tensors to a safetensors file.
pub fn write(path: &Path, tensors: &Tensors) {
    fn view(s: &Stored) -> TensorView<'_> {
        TensorView::new(s.dtype, s.shape.clone(), &s.bytes).expect("bytes that fit their shape")
    }
    let views = tensors.iter().map(|(name, stored)| (name, view(stored)));
    let bytes = safetensors::serialize(views, None).expect("tensors that serialize");
    std::fs::write(path, bytes).expect("a writable directory");
}

/// The numbers of a float32 tensor.
pub fn floats(stored: &Stored) -> Vec<f32> {
    stored.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The tensor with every number stored as `dtype` (float32 in, F16 or BF16 out).
pub fn halved(stored: &Stored, dtype: Dtype) -> Stored {
    let bytes = floats(stored).into_iter().flat_map(|v| match dtype {
        Dtype::F16 => half::f16::from_f32(v).to_le_bytes(),
        _ => half::bf16::from_f32(v).to_le_bytes(),
    });
    Stored { dtype, shape: stored.shape.clone(), bytes: bytes.collect() }
}
