//! Tables and maps of head edges.

use ndarray::{Array2, Array3, Array6, Axis};

use crate::names::{INPUTS, head_name};
use crate::numbers::number;

/// Names of the axes of head edges, prompt first.
pub const AXES: [&str; 7] = ["prompt", "layer_end", "head_end", "input", "layer_start", "head_start", "pos"];

/// Returns head edges summed over positions, `[input, head_end, head_start]`. Heads are numbered
/// through all layers.
#[must_use]
pub fn over_positions(paths: &Array6<f32>) -> Array3<f32> {
    let (layers, heads) = (paths.shape()[0], paths.shape()[1]);
    let sum = paths.sum_axis(Axis(5)); // [layer_end, head_end, input, layer_start, head_start]
    Array3::from_shape_fn((3, layers * heads, layers * heads), |(input, end, start)| {
        sum[[end / heads, end % heads, input, start / heads, start % heads]]
    })
}

/// Returns the names of the heads in all layers.
#[must_use]
pub fn heads(layers: usize, heads: usize) -> Vec<String> {
    (0..layers * heads).map(|i| head_name(i / heads, i % heads)).collect()
}

/// Returns table rows of the `n` edges with the largest effect, summed over positions: the edge's
/// name and its effect.
#[must_use]
pub fn largest(paths: &Array6<f32>, n: usize) -> Vec<Vec<String>> {
    let names = self::heads(paths.shape()[0], paths.shape()[1]);
    let sums = over_positions(paths);
    let heads = paths.shape()[1];
    let mut all: Vec<((usize, usize, usize), f32)> = sums.indexed_iter().map(|(i, v)| (i, *v)).collect();
    all.retain(|((_, end, start), _)| end / heads > start / heads);
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let row = |((input, end, start), value): &((usize, usize, usize), f32)| {
        vec![format!("{} -> {} {}", names[*start], names[*end], INPUTS[*input]), number(*value)]
    };
    all.iter().take(n).map(row).collect()
}

/// Returns the effects `[head_end, head_start]` of edges between chosen heads into one input. Heads
/// are numbered through all layers.
#[must_use]
pub fn between(sums: &Array3<f32>, input: usize, chosen: &[usize]) -> Array2<f32> {
    Array2::from_shape_fn((chosen.len(), chosen.len()), |(end, start)| sums[[input, chosen[end], chosen[start]]])
}
