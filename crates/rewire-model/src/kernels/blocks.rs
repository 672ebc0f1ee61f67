//! Blocks of queries, and the keys that each block attends to.

use std::ops::Range;

use burn::tensor::{Tensor, backend::Backend};

use crate::kernels::queries::{Queries, first_seen};

/// How the queries of a run are cut into blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    /// The number of queries in a block.
    pub(super) size: usize,
    /// The position of the first query.
    pub(super) first: usize,
    /// The number of keys that a query attends to, its own included.
    pub(super) window: Option<usize>,
}

/// One block: queries, counted from the first, and the positions of the keys that they attend to.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
    /// The positions of the queries, counted from the first key of the block.
    pub(super) at: Queries,
}

impl Blocks {
    /// Cuts `n` queries into blocks.
    pub(super) fn of(self, n: usize) -> impl Iterator<Item = Block> {
        (0..n).step_by(self.size).map(move |from| {
            let queries = from..n.min(from + self.size);
            let position = self.first + from;
            let keys = first_seen(position, self.window)..self.first + queries.end;
            Block { queries, at: Queries::From(position - keys.start), keys }
        })
    }
}

/// Queries, keys and values of one layer. Queries are `[batch, query, head, d_head]`, keys and
/// values `[batch, own, key/value head, d_head]`.
#[derive(Debug, Clone)]
pub(crate) struct AttentionInputs<B: Backend> {
    pub(crate) q: Tensor<B, 4>,
    pub(crate) k: Tensor<B, 4>,
    pub(crate) v: Tensor<B, 4>,
    /// Keys and values of the earlier positions, `[prompts, earlier, key/value head, d_head]`.
    pub(crate) earlier: Option<[Tensor<B, 4>; 2]>,
}

impl<B: Backend> AttentionInputs<B> {
    /// Returns the queries of a block, with the keys and values that they attend to.
    pub(super) fn of(&self, block: &Block) -> Self {
        let n_earlier = self.earlier.as_ref().map_or(0, |[keys, _]| keys.dims()[1]);
        let Range { start, end } = block.keys;
        let narrow = |x: &Tensor<B, 4>, range: Range<usize>| x.clone().narrow(1, range.start, range.len());
        let own = start.saturating_sub(n_earlier)..end - n_earlier;
        let before = |earlier: &[Tensor<B, 4>; 2]| earlier.each_ref().map(|x| narrow(x, start..n_earlier));
        Self {
            q: narrow(&self.q, block.queries.clone()),
            k: narrow(&self.k, own.clone()),
            v: narrow(&self.v, own),
            earlier: self.earlier.as_ref().filter(|_| start < n_earlier).map(before),
        }
    }
}
