//! Head edges as tables and maps.

use ndarray::{Array2, Array3, Array6, Axis};

use crate::names::{INPUTS, head_name};

/// The axes of head edges, prompt first.
pub const AXES: [&str; 7] = ["prompt", "layer_end", "head_end", "input", "layer_start", "head_start", "pos"];

/// Head edges summed over positions, `[input, head_end, head_start]` with heads of all layers in one row.
#[must_use]
pub fn over_positions(paths: &Array6<f32>) -> Array3<f32> {
    let (layers, heads) = (paths.shape()[0], paths.shape()[1]);
    let sum = paths.sum_axis(Axis(5)); // [layer_end, head_end, input, layer_start, head_start]
    Array3::from_shape_fn((3, layers * heads, layers * heads), |(input, end, start)| {
        sum[[end / heads, end % heads, input, start / heads, start % heads]]
    })
}

/// Names of the heads of all layers.
#[must_use]
pub fn heads(layers: usize, heads: usize) -> Vec<String> {
    (0..layers * heads).map(|i| head_name(i / heads, i % heads)).collect()
}

/// The paths of largest effect over all positions: from, to, effect.
#[must_use]
pub fn largest(paths: &Array6<f32>, n: usize) -> Vec<Vec<String>> {
    let names = self::heads(paths.shape()[0], paths.shape()[1]);
    let sums = over_positions(paths);
    let heads = paths.shape()[1];
    let mut all: Vec<((usize, usize, usize), f32)> = sums.indexed_iter().map(|(i, v)| (i, *v)).collect();
    all.retain(|((_, end, start), _)| end / heads > start / heads);
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let row = |((input, end, start), value): &((usize, usize, usize), f32)| {
        vec![format!("{} -> {} {}", names[*start], names[*end], INPUTS[*input]), format!("{value:.4}")]
    };
    all.iter().take(n).map(row).collect()
}

/// The map of one input between chosen heads (numbered through all layers): rows are ends, columns starts.
#[must_use]
pub fn between(sums: &Array3<f32>, input: usize, chosen: &[usize]) -> Array2<f32> {
    Array2::from_shape_fn((chosen.len(), chosen.len()), |(end, start)| sums[[input, chosen[end], chosen[start]]])
}
