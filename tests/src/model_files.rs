//! Model directories for a test: a fixture's tensors, changed, sharded or damaged.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor in the form stored in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Type of its numbers.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Bytes.
    pub bytes: Vec<u8>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Stored>;

/// Reads the tensors in a safetensors file.
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

/// Returns the numbers in a float32 tensor.
pub fn floats(stored: &Stored) -> Vec<f32> {
    stored.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Returns the tensor with every number stored as `dtype` (from float32 to F16 or BF16).
pub fn halved(stored: &Stored, dtype: Dtype) -> Stored {
    let bytes = floats(stored).into_iter().flat_map(|v| match dtype {
        Dtype::F16 => half::f16::from_f32(v).to_le_bytes(),
        _ => half::bf16::from_f32(v).to_le_bytes(),
    });
    Stored { dtype, shape: stored.shape.clone(), bytes: bytes.collect() }
}

/// Changes the tensors of a tiny fixture to fit another configuration, as
/// `tests/fixtures/config_fields.py` does. `layers N`, `vocabulary N`, `context N` and `width N`
/// keep the leading part. `mlp N` repeats neurons from the first one on. `untied` adds an
/// unembedding to GPT-2; `tied` removes NeoX's, and `unbiased` its biases of attention. An empty
/// recipe changes nothing.
pub fn resized(mut tensors: Tensors, recipe: &str) -> Tensors {
    let (kind, number) = recipe.split_once(' ').unwrap_or((recipe, "0"));
    let n: usize = number.parse().expect("a recipe ends in a number");
    let sizes: &[(usize, usize)] = match kind {
        "layers" => {
            let dropped = |name: &str| {
                (n..9).any(|l| name.contains(&format!("h.{l}.")) || name.contains(&format!("layers.{l}.")))
            };
            tensors.retain(|name, _| !dropped(name));
            return tensors;
        }
        "untied" => {
            let wte = tensors["transformer.wte.weight"].clone();
            let rows: Vec<usize> = (0..wte.shape[0]).rev().collect();
            tensors.insert("lm_head.weight".to_owned(), picked(&wte, 0, &rows));
            return tensors;
        }
        "tied" => {
            tensors.remove("embed_out.weight");
            return tensors;
        }
        "unbiased" => {
            tensors.retain(|name, _| !(name.contains(".attention.") && name.ends_with(".bias")));
            return tensors;
        }
        "vocabulary" => &[(41, n)],
        "context" => &[(16, n)],
        "mlp" => &[(48, n)],
        "width" => &[(32, n), (96, 3 * n)],
        _ => &[],
    };
    for (name, stored) in &mut tensors {
        let meant = match kind {
            "mlp" => name.contains(".mlp."),
            "context" => name.contains("wpe"),
            _ => true,
        };
        for axis in 0..stored.shape.len() {
            let size = stored.shape[axis];
            if let Some((_, wanted)) = sizes.iter().find(|(old, _)| *old == size && meant) {
                *stored = picked(stored, axis, &(0..*wanted).map(|i| i % size).collect::<Vec<_>>());
            }
        }
    }
    tensors
}

/// Returns the tensor with these indices along an axis (float32, one or two dimensions).
fn picked(stored: &Stored, axis: usize, indices: &[usize]) -> Stored {
    let inner: usize = stored.shape[axis + 1..].iter().product::<usize>() * 4;
    let outer: usize = stored.shape[..axis].iter().product();
    let size = stored.shape[axis];
    let pick = |o: usize, i: usize| &stored.bytes[(o * size + i) * inner..][..inner];
    let bytes = (0..outer).flat_map(|o| indices.iter().flat_map(move |&i| pick(o, i))).copied().collect();
    let mut shape = stored.shape.clone();
    shape[axis] = indices.len();
    Stored { dtype: stored.dtype, shape, bytes }
}
