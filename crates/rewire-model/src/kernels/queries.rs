//! The positions of a run's queries, which decide the keys that they attend to, and the rule of
//! their scores and patterns.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};

/// How scores follow from the products of queries and keys, and how patterns follow from scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ScoreRule {
    /// The number that products are divided by.
    pub(crate) divisor: f64,
    /// The bound `c` of scores `s`, which become `c tanh(s / c)`.
    pub(crate) cap: Option<f64>,
    /// The number of keys that a query attends to, its own included.
    pub(crate) window: Option<usize>,
    /// The temperature at which the backward pass takes the softmax; 1 for the gradient. The
    /// forward pass takes it at 1.
    pub(crate) softmax_temperature: f64,
}

/// The positions of a run's queries. A query attends to the keys at its own position and before.
#[derive(Debug, Clone)]
pub(crate) enum Queries {
    /// At this position and the following ones, the same in every row of the batch.
    From(usize),
    /// `per_row` queries of each row of the batch, at these positions, row by row.
    Each { positions: Vec<usize>, per_row: usize },
}

/// Returns the first key that a query at `position` attends to.
pub(crate) fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
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

    /// Returns the mask over scores `[batch, head, query, key]`: true for the keys that a query may
    /// not attend to. They are after the query and, with a window, more than `window - 1` before
    /// it.
    pub(crate) fn mask<B: Backend>(
        &self,
        [batch, _, n, keys]: [usize; 4],
        window: Option<usize>,
        device: &B::Device,
    ) -> Tensor<B, 4, Bool> {
        let hides = move |p: usize| {
            let from = first_seen(p, window);
            (0..keys).map(move |key| key > p || key < from)
        };
        match self {
            Queries::From(first) if window.is_none() => {
                Tensor::<B, 2, Bool>::tril_mask([n, keys], *first as i64, device).reshape([1, 1, n, keys])
            }
            Queries::From(first) => {
                let hidden = (*first..first + n).flat_map(hides).collect::<Vec<bool>>();
                Tensor::<B, 4, Bool>::from_data(TensorData::new(hidden, [1, 1, n, keys]), device)
            }
            Queries::Each { positions, .. } => {
                let hidden = positions.iter().flat_map(|&p| hides(p)).collect::<Vec<bool>>();
                Tensor::<B, 4, Bool>::from_data(TensorData::new(hidden, [batch, 1, n, keys]), device)
            }
        }
    }
}
