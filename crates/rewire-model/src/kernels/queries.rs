//! The positions of a run's queries, which decide the keys that they attend to.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};

/// The positions of a run's queries. A query attends to the keys at its own position and before.
#[derive(Debug, Clone)]
pub(crate) enum Queries {
    /// At this position and the following ones, the same in every row of the batch.
    From(usize),
    /// `per_row` queries of each row of the batch, at these positions, row by row.
    Each { positions: Vec<usize>, per_row: usize },
}

impl Queries {
    /// Returns the position of query `index` in `row` of the batch.
    #[cfg(feature = "flex")]
    #[inline]
    pub(crate) fn position(&self, row: usize, index: usize) -> usize {
        match self {
            Queries::From(first) => first + index,
            Queries::Each { positions, per_row } => positions[row * per_row + index],
        }
    }

    /// Returns the causal mask over scores `[batch, head, query, key]`: true for the keys that a
    /// query may not attend to.
    pub(crate) fn mask<B: Backend>(&self, [batch, _, n, keys]: [usize; 4], device: &B::Device) -> Tensor<B, 4, Bool> {
        match self {
            Queries::From(first) => {
                Tensor::<B, 2, Bool>::tril_mask([n, keys], *first as i64, device).reshape([1, 1, n, keys])
            }
            Queries::Each { positions, .. } => {
                let hidden = positions.iter().flat_map(|&p| (0..keys).map(move |key| key > p)).collect::<Vec<bool>>();
                Tensor::<B, 4, Bool>::from_data(TensorData::new(hidden, [batch, 1, n, keys]), device)
            }
        }
    }
}
