//! Makes a model's matrix of the tensors that hold its rows, where they lie in their files.

use std::ops::Range;

use rewire_gguf::StoredRows;

use crate::config::TransformerConfig;
use crate::files::layout;
use crate::files::stored::{Row, RowsAre, StoredMatrix, StoredTensor};
use crate::weights::weight_name::WeightName;

/// A tensor of a matrix, or its only one.
pub(crate) struct StoredPart {
    pub(crate) tensor: StoredTensor,
    /// The shape in transformers.
    pub(crate) shape: [usize; 2],
    /// How the stored rows make the matrix of transformers.
    pub(crate) rows: StoredRows,
    /// The rows that belong to the matrix, in the order of transformers. A tensor that is stored by
    /// columns belongs to it whole.
    pub(crate) range: Range<usize>,
}

impl StoredPart {
    /// Returns the number of stored rows, and the values of each.
    fn stored_shape(&self) -> [usize; 2] {
        let [rows, columns] = self.shape;
        match self.rows {
            StoredRows::Columns => [columns, rows],
            StoredRows::Same | StoredRows::Ordered(_) => [rows, columns],
        }
    }

    /// Returns the numbers of the stored rows of the matrix in the order of transformers.
    fn order(&self) -> Vec<usize> {
        match &self.rows {
            StoredRows::Ordered(order) => order[self.range.clone()].to_vec(),
            StoredRows::Same => self.range.clone().collect(),
            StoredRows::Columns => (0..self.stored_shape()[0]).collect(),
        }
    }

    /// Returns whether every value is finite. Reads the whole tensor.
    pub(crate) fn is_finite(&self) -> bool {
        let [rows, width] = self.stored_shape();
        let rows = (0..rows).map(|number| Row { tensor: 0, number }).collect();
        StoredMatrix::new(vec![self.tensor.clone()], rows, width, RowsAre::Rows).is_finite()
    }
}

/// Returns the model's matrix of these tensors, of which there is at least one. The rows of each
/// follow those of the one before.
pub(crate) fn stored_matrix(config: &TransformerConfig, part: WeightName, parts: Vec<StoredPart>) -> StoredMatrix {
    let in_files = |(tensor, part): (usize, &StoredPart)| {
        part.order().into_iter().map(move |number| Row { tensor, number }).collect::<Vec<_>>()
    };
    let mut rows: Vec<Row> = parts.iter().enumerate().flat_map(in_files).collect();
    if let Some(order) = layout::row_order(config, part, rows.len()) {
        rows = order.into_iter().map(|row| rows[row]).collect();
    }
    let is_column = |part: &StoredPart| part.rows == StoredRows::Columns;
    // What is transposed twice is not transposed.
    let rows_are = match layout::is_transposed(config.architecture, part) != parts.iter().any(is_column) {
        true => RowsAre::Columns,
        false => RowsAre::Rows,
    };
    let width = parts.first().map_or(0, |part| part.stored_shape()[1]);
    StoredMatrix::new(parts.into_iter().map(|part| part.tensor).collect(), rows, width, rows_are)
}
