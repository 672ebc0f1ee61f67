//! Comparing arrays of numbers, and saying where they differ most.

use burn::tensor::{Tensor, backend::Backend};
use ndarray::{ArrayD, IxDyn};

/// A tensor's values as a host array.
pub fn array<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> ArrayD<f32> {
    let shape = tensor.dims();
    ArrayD::from_shape_vec(IxDyn(&shape), tensor.into_data().iter::<f32>().collect()).expect("a tensor holds its shape")
}

/// The largest absolute value that is finite.
pub fn scale(values: &ArrayD<f32>) -> f32 {
    values.iter().filter(|v| v.is_finite()).fold(0.0, |m, v| m.max(v.abs()))
}

/// The largest absolute difference of arrays of one shape; equal infinities do not differ.
pub fn largest_difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape(), "the shapes differ");
    let difference = |(x, y): (&f32, &f32)| if x == y { 0.0 } else { (x - y).abs() };
    a.iter().zip(b).map(difference).fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) })
}

/// Panics where two arrays differ by more than `tolerance`.
pub fn assert_close(actual: &ArrayD<f32>, expected: &ArrayD<f32>, tolerance: f32, what: &str) {
    assert_eq!(actual.shape(), expected.shape(), "{what}: the shapes differ");
    let difference = largest_difference(actual, expected);
    assert!(difference <= tolerance, "{what}: differs by {difference:e}, more than {tolerance:e}");
}

/// How far effects may be from what they should be: a ten-thousandth on the CPU; a thousandth on a GPU, whose products add in another
/// order and whose functions are of fewer bits.
pub fn tolerance<B: Backend>() -> f32 {
    if rewire_device::computes_here::<B>(&Default::default()) { 1e-4 } else { 1e-3 }
}
