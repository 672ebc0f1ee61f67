//! Converts the stored values of a tensor to float32, as the format's reference does.
//!
//! The reference is ggml's C code and `quants.py` of the Python package `gguf`; the two agree bit
//! for bit. Products and sums are rounded to float32 one by one, in the order of the reference.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::blocks::of_32;
use crate::blocks::of_256;
use crate::read::tensor_type::TensorType;

/// Returns the values of whole blocks.
pub(crate) fn dequantize(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / kind.block_bytes() * kind.block_values()];
    kind.decode(bytes, &mut values);
    values
}

impl TensorType {
    /// Writes the values of whole blocks into `values`, exactly as the format's reference
    /// dequantizes them. If there are more blocks than `values` holds, or fewer, the rest is left.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            TensorType::F32 => plain(bytes, values, f32::from_le_bytes),
            TensorType::F16 => float16(bytes, values),
            TensorType::BF16 => plain(bytes, values, |b| bf16::from_le_bytes(b).to_f32()),
            TensorType::Q4_0 => blocks(bytes, values, of_32::q4_0),
            TensorType::Q4_1 => blocks(bytes, values, of_32::q4_1),
            TensorType::Q5_0 => blocks(bytes, values, of_32::q5_0),
            TensorType::Q5_1 => blocks(bytes, values, of_32::q5_1),
            TensorType::Q8_0 => blocks(bytes, values, of_32::q8_0),
            TensorType::Q4K => blocks(bytes, values, of_256::q4_k),
            TensorType::Q5K => blocks(bytes, values, of_256::q5_k),
            TensorType::Q6K => blocks(bytes, values, of_256::q6_k),
        }
    }
}

fn plain<const BYTES: usize>(bytes: &[u8], values: &mut [f32], value: impl Fn([u8; BYTES]) -> f32) {
    for (to, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *to = value(*bytes);
    }
}

/// Converts several values at once: the processor's instruction is looked for at each call.
fn float16(bytes: &[u8], values: &mut [f32]) {
    for (to, bytes) in values.chunks_mut(64).zip(bytes.chunks(128)) {
        let mut halves = [f16::ZERO; 64];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..to.len()].convert_to_f32_slice(to);
    }
}

fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    values: &mut [f32],
    block: impl Fn(&[u8; BYTES]) -> [f32; VALUES],
) {
    for (to, bytes) in values.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        *to = block(bytes);
    }
}
