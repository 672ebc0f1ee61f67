//! A weight matrix that stays in the model's file. It is converted to float32 at each use, to the
//! same values and in the same order as when a model is loaded in float32.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;
use rewire_gguf::TensorType;

use crate::files::bytes::Bytes;

/// Values of a row that are converted at once; a multiple of the values in a block of every type.
const PIECE: usize = 256;
/// Rows that are converted at once and become as many columns.
const ROWS: usize = 32;

/// A matrix in the model's files.
pub(crate) struct StoredMatrix {
    tensors: Vec<StoredTensor>,
    /// The places of the stored rows, in the model's order.
    rows: Vec<Row>,
    /// Values of a row.
    width: usize,
    /// Whether the stored rows are the model's rows or its columns.
    rows_are: RowsAre,
}

/// The axis of the model's matrix that stored rows make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsAre {
    Rows,
    Columns,
}

/// A tensor of a file: rows of equal length.
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    pub(crate) file: Arc<Bytes>,
    /// The first byte of the values in the file.
    pub(crate) from: usize,
    pub(crate) kind: TensorType,
}

/// The place of a row: its tensor, and its number there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) tensor: usize,
    pub(crate) number: usize,
}

impl StoredMatrix {
    /// Returns the matrix of these rows, of `width` values each. The tensors' values must lie
    /// inside their files, and whole blocks must make a row.
    pub(crate) fn new(tensors: Vec<StoredTensor>, rows: Vec<Row>, width: usize, rows_are: RowsAre) -> Self {
        Self { tensors, rows, width, rows_are }
    }

    /// Returns the shape in the model: `[rows, columns]`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.shape_of(self.rows.len())
    }

    /// Returns the shape of a matrix of `rows` stored rows.
    pub(crate) fn shape_of(&self, rows: usize) -> [usize; 2] {
        match self.rows_are {
            RowsAre::Rows => [rows, self.width],
            RowsAre::Columns => [self.width, rows],
        }
    }

    /// Returns the axis of the model's matrix that the stored rows make.
    pub(crate) fn rows_are(&self) -> RowsAre {
        self.rows_are
    }

    /// Returns the values in float32, in the model's layout.
    pub(crate) fn values(&self) -> Vec<f32> {
        self.converted(&self.rows)
    }

    /// Returns the values of some of the stored rows in float32, in the model's layout.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn chosen(&self, rows: &[usize]) -> Vec<f32> {
        let rows: Vec<Row> = rows.iter().map(|&row| self.rows[row]).collect();
        self.converted(&rows)
    }

    /// Returns whether every value is finite. Reads the whole matrix.
    pub(crate) fn is_finite(&self) -> bool {
        self.rows.par_iter().all(|row| {
            let mut values = [0.0; PIECE];
            (0..self.width).step_by(PIECE).all(|from| {
                let values = &mut values[..PIECE.min(self.width - from)];
                self.decode(*row, from, values);
                values.iter().fold(true, |finite, value| finite & value.is_finite())
            })
        })
    }

    fn converted(&self, rows: &[Row]) -> Vec<f32> {
        let mut values = vec![0.0; rows.len() * self.width];
        if values.is_empty() {
            return values;
        }
        match self.rows_are {
            RowsAre::Rows => {
                let each = values.par_chunks_mut(self.width).zip(rows);
                each.for_each(|(to, row)| self.decode(*row, 0, to));
            }
            RowsAre::Columns => {
                let pieces = values.par_chunks_mut(PIECE * rows.len()).enumerate();
                pieces.for_each(|(piece, to)| self.transpose_piece(rows, piece * PIECE, to));
            }
        }
        values
    }

    /// Writes the values of `rows` from `from` on into the rows `to` of the model's matrix, as its
    /// columns.
    fn transpose_piece(&self, rows: &[Row], from: usize, to: &mut [f32]) {
        let width = to.len() / rows.len();
        let mut tile = [[0.0; PIECE]; ROWS];
        for (block, some) in rows.chunks(ROWS).enumerate() {
            for (row, values) in some.iter().zip(&mut tile) {
                self.decode(*row, from, &mut values[..width]);
            }
            for (i, to) in to.chunks_exact_mut(rows.len()).enumerate() {
                for (to, values) in to[block * ROWS..].iter_mut().zip(&tile[..some.len()]) {
                    *to = values[i];
                }
            }
        }
    }

    /// Converts the values of a row from `from` on, a multiple of [`PIECE`].
    fn decode(&self, row: Row, from: usize, values: &mut [f32]) {
        let StoredTensor { file, from: start, kind } = &self.tensors[row.tensor];
        let bytes = |values: usize| values / kind.block_values() * kind.block_bytes();
        let first = start + row.number * bytes(self.width) + bytes(from);
        kind.decode(&file[first..first + bytes(values.len())], values);
    }
}

impl fmt::Debug for StoredMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredMatrix").field("shape", &self.shape()).field("rows_are", &self.rows_are).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A float32 tensor of 70 rows of 300 values, which count up.
    fn counting(rows_are: RowsAre, order: impl Iterator<Item = usize>) -> StoredMatrix {
        let bytes: Vec<u8> = (0..70 * 300).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let file = Arc::new(Bytes::Embedded(bytes.leak()));
        let rows = order.map(|number| Row { tensor: 0, number }).collect();
        StoredMatrix::new(vec![StoredTensor { file, from: 0, kind: TensorType::F32 }], rows, 300, rows_are)
    }

    #[test]
    fn rows_become_rows_or_columns_in_the_given_order() {
        let order = || (0..70).rev();
        let expected = |row: usize, at: usize| ((69 - row) * 300 + at) as f32;
        let rows = counting(RowsAre::Rows, order()).values();
        let columns = counting(RowsAre::Columns, order()).values();
        for (row, at) in [(0, 0), (0, 299), (3, 255), (31, 256), (32, 257), (69, 299)] {
            assert_eq!(rows[row * 300 + at], expected(row, at));
            assert_eq!(columns[at * 70 + row], expected(row, at));
        }
        assert_eq!(counting(RowsAre::Columns, order()).shape(), [300, 70]);
    }

    #[test]
    fn some_rows_are_converted_alone() {
        let stored = counting(RowsAre::Columns, 0..70);
        assert_eq!(stored.shape_of(2), [300, 2]);
        assert_eq!(stored.chosen(&[5, 1])[..4], [1500.0, 300.0, 1501.0, 301.0]);
        assert_eq!(stored.chosen(&[]), [0.0; 0]);
    }

    #[test]
    fn numbers_that_are_not_finite_are_found() {
        assert!(counting(RowsAre::Rows, 0..70).is_finite());
        let mut bytes: Vec<u8> = [0.0_f32; 600].iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes[4 * 599..].copy_from_slice(&f32::NAN.to_le_bytes());
        let tensor = StoredTensor { file: Arc::new(Bytes::Embedded(bytes.leak())), from: 0, kind: TensorType::F32 };
        let rows = [0, 1].map(|number| Row { tensor: 0, number }).to_vec();
        assert!(!StoredMatrix::new(vec![tensor], rows, 300, RowsAre::Rows).is_finite());
    }
}
