//! Which keys the queries of a run see.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};

/// Where the queries of a run are, and so which keys they see: those at their own position and before.
#[derive(Debug, Clone)]
pub(crate) enum Queries {
    /// At this position and the ones after it, the same in every row of the batch.
    From(usize),
    /// One a row, at these positions.
    Each(Vec<usize>),
}

impl Queries {
    /// The position of query `index` in `row` of the batch.
    #[cfg(feature = "flex")]
    #[inline]
    pub(crate) fn position(&self, row: usize, index: usize) -> usize {
        match self {
            Queries::From(first) => first + index,
            Queries::Each(positions) => positions[row],
        }
    }

    /// True where a query may not look, over scores `[batch, head, query, key]`.
    pub(crate) fn mask<B: Backend>(&self, [batch, _, n, keys]: [usize; 4], device: &B::Device) -> Tensor<B, 4, Bool> {
        match self {
            Queries::From(first) => {
                Tensor::<B, 2, Bool>::tril_mask([n, keys], *first as i64, device).reshape([1, 1, n, keys])
            }
            Queries::Each(positions) => {
                let hidden = positions.iter().flat_map(|&p| (0..keys).map(move |key| key > p)).collect::<Vec<bool>>();
                Tensor::<B, 4, Bool>::from_data(TensorData::new(hidden, [batch, 1, 1, keys]), device)
            }
        }
    }
}
