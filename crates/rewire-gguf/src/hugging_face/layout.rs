//! How the values of a tensor in a GGUF file differ from those in the files of transformers.

use crate::hugging_face::architecture::Architecture;

/// The change that llama.cpp's converter made to a tensor. Each is undone exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Same,
    /// The matrix is transposed: GPT-2's linear weights are `[in, out]` in transformers.
    Transposed,
    /// The rows of each of these heads are interleaved: rows `i` and `i + d_head / 2`, which rotary
    /// positions turn together, are neighbors.
    InterleavedHeads(u64),
    /// The norm multiplies by the stored gain. transformers' gain is one less.
    GainPlusOne,
}

/// How the rows of a matrix in a GGUF file make the matrix of transformers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredRows {
    /// They are its rows.
    Same,
    /// They are its columns.
    Columns,
    /// Its row `i` is the stored row of the number at place `i`.
    Ordered(Vec<usize>),
}

impl Layout {
    /// Returns the layout of a tensor, by its name in transformers. The heads are those with
    /// queries, and those with keys.
    pub(crate) fn of(architecture: Architecture, name: &str, [queries, keys]: [u64; 2]) -> Self {
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        match architecture {
            Architecture::Gpt2 if ends(&[".c_attn.weight", ".c_proj.weight", ".c_fc.weight"]) => Self::Transposed,
            Architecture::Llama if ends(&[".q_proj.weight", ".q_proj.bias"]) => Self::InterleavedHeads(queries),
            Architecture::Llama if ends(&[".k_proj.weight", ".k_proj.bias"]) => Self::InterleavedHeads(keys),
            Architecture::Gemma2 | Architecture::Gemma3 if ends(&["norm.weight"]) => Self::GainPlusOne,
            _ => Self::Same,
        }
    }

    /// Returns the shape in transformers, or the reason why a tensor of this shape cannot have the
    /// layout.
    pub(crate) fn shape(self, shape: &[usize]) -> Result<Vec<usize>, String> {
        match (self, shape) {
            (Self::Transposed, &[rows, columns]) => Ok(vec![columns, rows]),
            (Self::Transposed, _) => Err(format!("its shape {shape:?} is not that of a matrix")),
            (Self::InterleavedHeads(heads), _) if !(shape[0] as u64).is_multiple_of(heads.saturating_mul(2)) => {
                Err(format!("its {} rows are not an even number for each of {heads} heads", shape[0]))
            }
            _ => Ok(shape.to_vec()),
        }
    }

    /// Returns how `rows` stored rows make the matrix of transformers.
    pub(crate) fn rows(self, rows: usize) -> StoredRows {
        match self {
            Self::Same | Self::GainPlusOne => StoredRows::Same,
            Self::Transposed => StoredRows::Columns,
            Self::InterleavedHeads(heads) => {
                let heads = heads as usize;
                let d_head = rows / heads;
                let in_head = move |head: usize| (0..d_head).map(move |at| separated(head, at, d_head));
                StoredRows::Ordered((0..heads).flat_map(in_head).collect())
            }
        }
    }

    /// Returns the values in transformers' layout. `shape` is the shape in the GGUF file.
    pub(crate) fn undo(self, mut values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match self {
            Self::Same => values,
            Self::Transposed => {
                let (rows, columns) = (shape[0], shape[1]);
                (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)).map(|at| values[at]).collect()
            }
            Self::InterleavedHeads(heads) => separate_pairs(&values, shape[0], heads as usize),
            Self::GainPlusOne => {
                // The sum `1 + gain` that the model computes is the stored number again.
                values.iter_mut().for_each(|gain| *gain -= 1.0);
                values
            }
        }
    }
}

/// Returns the stored row that is row `at` of a head: row `2 i + half` is moved to row
/// `half d_head / 2 + i`.
fn separated(head: usize, at: usize, d_head: usize) -> usize {
    let (half, i) = (at / (d_head / 2), at % (d_head / 2));
    head * d_head + 2 * i + half
}

/// Moves the rows of each head to their places in transformers.
fn separate_pairs(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, d_head) = (values.len() / rows, rows / heads);
    let row = |head: usize, at: usize| &values[separated(head, at, d_head) * width..][..width];
    (0..heads).flat_map(|head| (0..d_head).flat_map(move |at| row(head, at).iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_are_separated_head_by_head() {
        // Two heads of four rows of one number, in the order of transformers: 0 to 3 and 4 to 7.
        let stored = vec![0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        let undone = Layout::InterleavedHeads(2).undo(stored, &[8, 1]);
        assert_eq!(undone, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn the_converters_permutation_is_undone() {
        // The converter reshapes rows to [heads, 2, d_head / 2] and swaps the last two axes.
        let (heads, half, width) = (3, 4, 5);
        let original: Vec<f32> = (0..heads * 2 * half * width).map(|i| i as f32).collect();
        let row = |head: usize, side: usize, i: usize| &original[((head * 2 + side) * half + i) * width..][..width];
        let mut stored = Vec::new();
        for head in 0..heads {
            for i in 0..half {
                for side in 0..2 {
                    stored.extend_from_slice(row(head, side, i));
                }
            }
        }
        let shape = [heads * 2 * half, width];
        assert_ne!(stored, original);
        assert_eq!(Layout::InterleavedHeads(heads as u64).undo(stored, &shape), original);
    }

    #[test]
    fn transposed_matrices_are_transposed_back() {
        let undone = Layout::Transposed.undo(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        assert_eq!(undone, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(Layout::Transposed.shape(&[2, 3]), Ok(vec![3, 2]));
        assert!(Layout::Transposed.shape(&[6]).is_err());
    }

    #[test]
    fn heads_with_an_odd_number_of_rows_are_refused() {
        for heads in [3, 0, u64::MAX] {
            assert!(Layout::InterleavedHeads(heads).shape(&[8, 2]).is_err(), "{heads}");
        }
        assert_eq!(Layout::InterleavedHeads(4).shape(&[8, 2]), Ok(vec![8, 2]));
    }
}
