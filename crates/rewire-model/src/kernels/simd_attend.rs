//! Attention of one head by blocks of queries, in loops over float32 rows.
//!
//! Each score, weight and mixed value is the sum that the loops over whole patterns make, in the
//! same order. Only which numbers lie beside each other in a vector differs: 16 keys of one query
//! here, 16 numbers of one key there.

use std::ops::Range;

use pulp::Arch;

use crate::kernels::blocks::Blocks;
use crate::kernels::queries::{ScoreRule, first_seen};
use crate::kernels::simd::{Attended, LANES, StridedRows, softmax_row, tanh};

type Vector = [f32; LANES];

/// The number of queries whose values are mixed together.
const GROUP: usize = 8;

/// Queries, keys and values of one head of one row of the batch. `d_head` is padded with zeros to a
/// multiple of [`LANES`].
struct Head {
    /// `[query, d_head]`.
    q: Vec<f32>,
    /// `[tile, d_head, key of the tile]`, with tiles of [`LANES`] keys.
    tiles: Vec<f32>,
    /// `[key, d_head]`.
    values: Vec<f32>,
    d_padded: usize,
}

/// Mixes the values of one head of one row of the batch. Writes `[query, d_head]` to `out`.
pub(super) fn attend(
    q: StridedRows<'_>,
    [keys, values]: [Attended<'_>; 2],
    head: usize,
    blocks: Blocks,
    rule: ScoreRule,
    out: &mut [f32],
) {
    let (n, d_head) = (out.len() / q.d_head.max(1), q.d_head);
    let n_keys = blocks.first + n;
    let of_head = Head::new(q, [keys, values], head, [n, n_keys]);
    let mut pattern = vec![0.0; blocks.size.min(n) * n_keys.next_multiple_of(LANES)];
    let mut mixed = vec![0.0; blocks.size.min(n) * of_head.d_padded];
    for block in blocks.of(n) {
        // The first key is moved to the start of its tile. This keeps each key in its place among
        // the sums of a row.
        let from = block.keys.start / LANES * LANES;
        let keys = from..block.keys.end;
        let width = keys.len().next_multiple_of(LANES);
        let pattern = &mut pattern[..block.queries.len() * width];
        Arch::new().dispatch(|| {
            of_head.scores(&block.queries, &keys, blocks.first, pattern);
            for (row, query) in pattern.chunks_exact_mut(width).zip(block.queries.clone()) {
                weigh(row, blocks.first + query - from, rule);
            }
            of_head.mix(pattern, &keys, &mut mixed[..block.queries.len() * of_head.d_padded]);
        });
        let out = out[block.queries.start * d_head..].chunks_exact_mut(d_head);
        for (out, mixed) in out.zip(mixed.chunks_exact(of_head.d_padded)).take(block.queries.len()) {
            out.copy_from_slice(&mixed[..d_head]);
        }
    }
}

/// Turns products of a query and the keys of its row into weights. The query is at `position`,
/// counted from the first key of the row.
#[inline(always)]
fn weigh(row: &mut [f32], position: usize, rule: ScoreRule) {
    let (seen, after) = row.split_at_mut(position + 1);
    let (before, seen) = seen.split_at_mut(first_seen(position, rule.window));
    let divisor = rule.divisor as f32;
    seen.iter_mut().for_each(|score| *score /= divisor);
    if let Some(cap) = rule.cap {
        let cap = cap as f32;
        seen.iter_mut().for_each(|score| *score = tanh(*score / cap) * cap);
    }
    before.fill(f32::NEG_INFINITY);
    after.fill(f32::NEG_INFINITY);
    softmax_row(row);
}

impl Head {
    fn new(q: StridedRows<'_>, [keys, values]: [Attended<'_>; 2], head: usize, [n, n_keys]: [usize; 2]) -> Self {
        let (d_head, d_padded) = (q.d_head, q.d_head.next_multiple_of(LANES));
        let mut of_head = Self {
            q: vec![0.0; n * d_padded],
            tiles: vec![0.0; n_keys.next_multiple_of(LANES) * d_padded],
            values: vec![0.0; n_keys * d_padded],
            d_padded,
        };
        for (query, row) in of_head.q.chunks_exact_mut(d_padded).enumerate() {
            row[..d_head].copy_from_slice(q.at(keys.row, query, head));
        }
        for (key, row) in of_head.values.chunks_exact_mut(d_padded).enumerate() {
            row[..d_head].copy_from_slice(values.at(key, head));
        }
        for key in 0..n_keys {
            let tile = &mut of_head.tiles[key / LANES * LANES * d_padded..][..LANES * d_padded];
            for (to, from) in tile.chunks_exact_mut(LANES).zip(keys.at(key, head)) {
                to[key % LANES] = *from;
            }
        }
        of_head
    }

    /// Writes the products of a block's queries with these keys, `[query, key]`, to `out`. Leaves
    /// out tiles whose keys all come after the query.
    #[inline(always)]
    fn scores(&self, queries: &Range<usize>, keys: &Range<usize>, first: usize, out: &mut [f32]) {
        let width = keys.len().next_multiple_of(LANES);
        for tile in (keys.start..keys.end).step_by(LANES) {
            let of_tile = &self.tiles[tile * self.d_padded..][..LANES * self.d_padded];
            for (row, query) in out.chunks_exact_mut(width).zip(queries.clone()) {
                if tile <= first + query {
                    let q = &self.q[query * self.d_padded..][..self.d_padded];
                    row[tile - keys.start..][..LANES].copy_from_slice(&dots(q, of_tile));
                }
            }
        }
    }

    /// Writes values mixed by a block's pattern `[query, key]` to `out`, `[query, d_head]`.
    #[inline(always)]
    fn mix(&self, pattern: &[f32], keys: &Range<usize>, out: &mut [f32]) {
        let width = keys.len().next_multiple_of(LANES);
        let values = &self.values[keys.start * self.d_padded..keys.end * self.d_padded];
        let groups = pattern.chunks(GROUP * width).zip(out.chunks_mut(GROUP * self.d_padded));
        for (pattern, out) in groups {
            if pattern.len() == GROUP * width {
                mix_group::<GROUP>(pattern, width, values, self.d_padded, out);
                continue;
            }
            for (pattern, out) in pattern.chunks_exact(width).zip(out.chunks_exact_mut(self.d_padded)) {
                mix_group::<1>(pattern, width, values, self.d_padded, out);
            }
        }
    }
}

/// Writes the values `[key, d_head]` mixed for `N` queries to `out`.
#[inline(always)]
fn mix_group<const N: usize>(pattern: &[f32], width: usize, values: &[f32], d_padded: usize, out: &mut [f32]) {
    let n_keys = values.len() / d_padded;
    let rows: [&[f32]; N] = std::array::from_fn(|query| &pattern[query * width..][..n_keys]);
    for column in (0..d_padded).step_by(LANES) {
        let mut sums = [[0.0; LANES]; N];
        for (key, values) in values.chunks_exact(d_padded).enumerate() {
            let values = vector(&values[column..]);
            for (sums, row) in sums.iter_mut().zip(&rows) {
                add_scaled(sums, row[key], values);
            }
        }
        for (out, sums) in out.chunks_exact_mut(d_padded).zip(&sums) {
            out[column..][..LANES].copy_from_slice(sums);
        }
    }
}

#[inline(always)]
fn vector(numbers: &[f32]) -> Vector {
    let mut vector = [0.0; LANES];
    vector.copy_from_slice(&numbers[..LANES]);
    vector
}

#[inline(always)]
fn sum(mut a: Vector, b: Vector) -> Vector {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

#[inline(always)]
fn add_scaled(sums: &mut Vector, factor: f32, x: Vector) {
    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}

/// Returns the dot products of a query with the keys of a tile. The partial sums of a dot product
/// are those of `simd::dot`, and are added in the order of `simd::fold`.
#[inline(always)]
fn dots(q: &[f32], tile: &[f32]) -> Vector {
    sum(eighth(q, tile, 0), eighth(q, tile, 1))
}

#[inline(always)]
fn eighth(q: &[f32], tile: &[f32], lane: usize) -> Vector {
    sum(quarter(q, tile, lane), quarter(q, tile, lane + 2))
}

#[inline(always)]
fn quarter(q: &[f32], tile: &[f32], lane: usize) -> Vector {
    sum(half(q, tile, lane), half(q, tile, lane + 4))
}

#[inline(always)]
fn half(q: &[f32], tile: &[f32], lane: usize) -> Vector {
    sum(partial(q, tile, lane), partial(q, tile, lane + 8))
}

/// Returns the sums over the numbers `lane`, `lane + 16`, .. of a query and of each key.
#[inline(always)]
fn partial(q: &[f32], tile: &[f32], lane: usize) -> Vector {
    let mut sums = [0.0; LANES];
    for (q, keys) in q.chunks_exact(LANES).zip(tile.chunks_exact(LANES * LANES)) {
        add_scaled(&mut sums, q[lane], vector(&keys[lane * LANES..]));
    }
    sums
}
