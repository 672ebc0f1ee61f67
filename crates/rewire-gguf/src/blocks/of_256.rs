//! Blocks of 256 values: Q4_K, Q5_K and Q6_K. They are quantized twice: the scales of smaller
//! groups are whole numbers, multiplied by the block's own scale `d` in float16.
//!
//! Q4_K and Q5_K have eight groups of 32 values, each with a scale and a minimum of six bits. Q6_K
//! has sixteen groups of 16 values, each with a signed scale of eight bits.

use crate::blocks::scale::number;

/// Returns the scales and the minima of eight groups.
///
/// Bytes 0 to 3 hold the scales of the first four groups in their six low bits, and bytes 4 to 7
/// their minima. Byte `8 + i` holds the four low bits of scale and minimum of group `4 + i`, whose
/// two high bits are those of bytes `i` and `4 + i`.
fn scales_and_minima(packed: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|group| {
        let (scale, minimum) = match group.checked_sub(4) {
            None => (packed[group] & 0x3f, packed[group + 4] & 0x3f),
            Some(i) => {
                let low = packed[8 + i];
                (low & 0x0f | (packed[i] >> 2) & 0x30, low >> 4 | (packed[4 + i] >> 2) & 0x30)
            }
        };
        (f32::from(scale), f32::from(minimum))
    })
}

/// Returns four bits of value `i` of a group of 32: two groups share 32 bytes.
fn nibble(halves: &[u8], group: usize, i: usize) -> u8 {
    halves[group / 2 * 32 + i] >> (group % 2 * 4) & 0x0f
}

/// `d scale q - dmin minimum`.
fn with_minima(header: &[u8], q: impl Fn(usize, usize) -> u8) -> [f32; 256] {
    let (d, d_minimum) = (number(header, 0), number(header, 2));
    let groups = scales_and_minima(&header[4..16]).map(|(scale, minimum)| (d * scale, d_minimum * minimum));
    std::array::from_fn(|at| {
        let (scale, minimum) = groups[at / 32];
        scale * f32::from(q(at / 32, at % 32)) - minimum
    })
}

pub(crate) fn q4_k(block: &[u8; 144]) -> [f32; 256] {
    let halves = &block[16..];
    with_minima(block, |group, i| nibble(halves, group, i))
}

/// The fifth bit of value `i` of a group is the group's bit in byte `i`.
pub(crate) fn q5_k(block: &[u8; 176]) -> [f32; 256] {
    let (fifth, halves) = block[16..].split_at(32);
    with_minima(block, |group, i| nibble(halves, group, i) | (fifth[i] >> group & 1) << 4)
}

/// `d scale (q - 32)`.
///
/// Each half of the block has 64 bytes with four low bits of two values, and 32 bytes with two high
/// bits of four values.
pub(crate) fn q6_k(block: &[u8; 210]) -> [f32; 256] {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = number(block, 208);
    std::array::from_fn(|at| {
        let (half, quarter, i) = (at / 128, at / 32 % 4, at % 32);
        let low = low[half * 64 + quarter % 2 * 32 + i] >> (quarter / 2 * 4) & 0x0f;
        let high = high[half * 32 + i] >> (quarter * 2) & 3;
        let scale = d * f32::from(scales[at / 16] as i8);
        scale * f32::from((low | high << 4) as i8 - 32)
    })
}
