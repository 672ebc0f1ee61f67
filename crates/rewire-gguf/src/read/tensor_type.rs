//! The types of tensors, and the blocks that their values are stored in.

use std::fmt;

/// A type whose values can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    BF16,
    /// 4 bits and a scale for 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 values.
    Q4_1,
    /// 5 bits and a scale for 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 values.
    Q5_1,
    /// 8 bits and a scale for 32 values.
    Q8_0,
    /// 4 bits for 256 values, with scales and minima of 32.
    Q4K,
    /// 5 bits for 256 values, with scales and minima of 32.
    Q5K,
    /// 6 bits for 256 values, with scales of 16.
    Q6K,
}

/// The types: the number in a file, the name, the values of a block and its bytes.
const TYPES: [(TensorType, u32, &str, usize, usize); 11] = [
    (TensorType::F32, 0, "F32", 1, 4),
    (TensorType::F16, 1, "F16", 1, 2),
    (TensorType::BF16, 30, "BF16", 1, 2),
    (TensorType::Q4_0, 2, "Q4_0", 32, 18),
    (TensorType::Q4_1, 3, "Q4_1", 32, 20),
    (TensorType::Q5_0, 6, "Q5_0", 32, 22),
    (TensorType::Q5_1, 7, "Q5_1", 32, 24),
    (TensorType::Q8_0, 8, "Q8_0", 32, 34),
    (TensorType::Q4K, 12, "Q4_K", 256, 144),
    (TensorType::Q5K, 13, "Q5_K", 256, 176),
    (TensorType::Q6K, 14, "Q6_K", 256, 210),
];

/// Types of the format that are not supported, by their number.
const OTHERS: [(u32, &str); 25] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

impl TensorType {
    /// Every type.
    pub fn all() -> impl Iterator<Item = Self> {
        TYPES.into_iter().map(|(kind, ..)| kind)
    }

    /// Returns the type with a number. The error names the type and those that can be read.
    pub(crate) fn from_number(number: u32) -> Result<Self, String> {
        if let Some((kind, ..)) = TYPES.into_iter().find(|(_, known, ..)| *known == number) {
            return Ok(kind);
        }
        let name = match OTHERS.into_iter().find(|(known, _)| *known == number) {
            Some((_, name)) => name.to_owned(),
            None => format!("number {number}"),
        };
        let known: Vec<String> = Self::all().map(|kind| kind.to_string()).collect();
        Err(format!("it has the type {name}, and Rewire reads {}; take another file of this model", known.join(", ")))
    }

    fn row(self) -> (TensorType, u32, &'static str, usize, usize) {
        TYPES[self as usize]
    }

    /// Returns the number of values that are stored together.
    #[must_use]
    pub fn block_values(self) -> usize {
        self.row().3
    }

    /// Returns the bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.row().4
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_types_is_in_the_order_of_the_types() {
        for (index, kind) in TensorType::all().enumerate() {
            assert_eq!(kind as usize, index, "{kind}");
            assert_eq!(TensorType::from_number(kind.row().1), Ok(kind));
        }
    }

    #[test]
    fn an_unsupported_type_is_refused_by_name_with_the_supported_types() {
        let refused = TensorType::from_number(11).unwrap_err();
        assert!(refused.contains("the type Q3_K") && refused.contains("F32, F16, BF16, Q4_0"), "{refused}");
        assert!(TensorType::from_number(77).unwrap_err().contains("the type number 77"));
    }
}
