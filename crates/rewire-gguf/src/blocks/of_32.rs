//! Blocks of 32 values: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.
//!
//! A block begins with its scale `d`, and for types ending in 1 with its minimum `m`, in float16.
//! Four bits of value `i` are the low half of byte `i` for the first 16 values, and the high half
//! of byte `i - 16` for the others. The fifth bit of value `i` is bit `i` of a 32-bit number.

use crate::blocks::scale::number;

/// Returns the four low bits of each value.
fn nibbles(halves: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { halves[i] & 0x0f } else { halves[i - 16] >> 4 })
}

/// Returns the five bits of each value.
fn five_bits(fifth: &[u8], halves: &[u8]) -> [u8; 32] {
    let low = nibbles(halves);
    let fifth = u32::from_le_bytes([fifth[0], fifth[1], fifth[2], fifth[3]]);
    std::array::from_fn(|i| low[i] | (((fifth >> i) & 1) as u8) << 4)
}

/// `d (q - 8)`.
pub(crate) fn q4_0(block: &[u8; 18]) -> [f32; 32] {
    let d = number(block, 0);
    nibbles(&block[2..]).map(|q| d * f32::from(q as i8 - 8))
}

/// `d q + m`.
pub(crate) fn q4_1(block: &[u8; 20]) -> [f32; 32] {
    let (d, m) = (number(block, 0), number(block, 2));
    nibbles(&block[4..]).map(|q| d * f32::from(q) + m)
}

/// `d (q - 16)`.
pub(crate) fn q5_0(block: &[u8; 22]) -> [f32; 32] {
    let d = number(block, 0);
    five_bits(&block[2..6], &block[6..]).map(|q| d * f32::from(q as i8 - 16))
}

/// `d q + m`.
pub(crate) fn q5_1(block: &[u8; 24]) -> [f32; 32] {
    let (d, m) = (number(block, 0), number(block, 2));
    five_bits(&block[4..8], &block[8..]).map(|q| d * f32::from(q) + m)
}

/// `d q`, with q from -128 to 127.
pub(crate) fn q8_0(block: &[u8; 34]) -> [f32; 32] {
    let d = number(block, 0);
    std::array::from_fn(|i| d * f32::from(block[2 + i] as i8))
}
