//! The scales of blocks.

use half::f16;

/// Returns the float16 number at a place of a block.
pub(crate) fn number(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
