//! Converts the stored values of a tensor to float32, as the format's reference does.
//!
//! The reference is ggml's C code and `quants.py` of the Python package `gguf`; the two agree bit
//! for bit. Products and sums are rounded to float32 one by one, in the order of the reference.

use half::{bf16, f16};

use crate::blocks::of_32;
use crate::blocks::of_256;
use crate::read::tensor_type::TensorType;

/// Returns the values of whole blocks.
pub(crate) fn dequantize(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    match kind {
        TensorType::F32 => plain(bytes, f32::from_le_bytes),
        TensorType::F16 => plain(bytes, |b| f16::from_le_bytes(b).to_f32()),
        TensorType::BF16 => plain(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        TensorType::Q4_0 => blocks(bytes, of_32::q4_0),
        TensorType::Q4_1 => blocks(bytes, of_32::q4_1),
        TensorType::Q5_0 => blocks(bytes, of_32::q5_0),
        TensorType::Q5_1 => blocks(bytes, of_32::q5_1),
        TensorType::Q8_0 => blocks(bytes, of_32::q8_0),
        TensorType::Q4K => blocks(bytes, of_256::q4_k),
        TensorType::Q5K => blocks(bytes, of_256::q5_k),
        TensorType::Q6K => blocks(bytes, of_256::q6_k),
    }
}

fn plain<const BYTES: usize>(bytes: &[u8], value: impl Fn([u8; BYTES]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    block: impl Fn(&[u8; BYTES]) -> [f32; VALUES],
) -> Vec<f32> {
    let blocks = bytes.as_chunks().0;
    let mut values = Vec::with_capacity(blocks.len() * VALUES);
    for bytes in blocks {
        values.extend_from_slice(&block(bytes));
    }
    values
}
