//! The tensors of a file by their names in transformers.

use crate::error::GgufError;
use crate::hugging_face::architecture::Architecture;
use crate::hugging_face::fields::Fields;
use crate::hugging_face::layout::{Layout, StoredRows};
use crate::hugging_face::names::hugging_face_name;
use crate::hugging_face::rope::DIVISORS;
use crate::read::file::Gguf;
use crate::read::tensors::Tensor;

/// A tensor with its name, its shape and its values in the files of transformers.
#[derive(Debug, Clone)]
pub struct NamedTensor<'a> {
    /// The name in transformers.
    pub name: String,
    /// The shape in transformers, in row-major order.
    pub shape: Vec<usize>,
    /// The tensor in the GGUF file.
    pub stored: Tensor<'a>,
    layout: Layout,
}

impl<'a> NamedTensor<'a> {
    /// Returns how the stored rows of a matrix make the matrix of transformers.
    #[must_use]
    pub fn rows(&self) -> StoredRows {
        self.layout.rows(self.stored.shape[0])
    }

    /// Returns the bytes of the values, in the type of the file.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.stored.bytes()
    }

    /// Returns the values in float32 and in transformers' layout: dequantized exactly, and with the
    /// changes of llama.cpp's converter undone.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        self.layout.undo(self.stored.to_f32(), &self.stored.shape)
    }
}

/// Returns the tensors of a model, in the order of the file. The divisors of rotary angles are left
/// out: they are in [`config_json`](crate::config_json).
///
/// # Errors
/// [`GgufError`] if the architecture is not supported, or has no tensor of such a name or shape.
pub fn named_tensors<'a>(file: &Gguf<'a>) -> Result<Vec<NamedTensor<'a>>, GgufError> {
    let architecture = Architecture::of(file)?;
    let fields = Fields::new(file, architecture)?;
    let heads = [fields.size("attention.head_count")?, fields.n_key_value_heads()?];
    let named = |tensor: &Tensor<'a>| {
        let refuse = |reason: String| GgufError::tensor(file.path(), tensor.name, reason);
        let name = hugging_face_name(architecture, tensor.name)
            .ok_or_else(|| refuse(format!("the architecture {} has no such tensor", architecture.name())))?;
        let layout = Layout::of(architecture, &name, heads);
        let shape = layout.shape(&tensor.shape).map_err(refuse)?;
        Ok(NamedTensor { name, shape, stored: tensor.clone(), layout })
    };
    let is_weight = |tensor: &&Tensor<'_>| tensor.name != DIVISORS;
    file.tensors().iter().filter(is_weight).map(named).collect()
}
