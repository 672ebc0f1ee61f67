//! Compares arrays of numbers and reports the largest difference.

use burn::tensor::{DType, Element, Tensor, backend::Backend};
use ndarray::{ArrayD, IxDyn};

/// Returns a tensor's values as an ndarray array.
pub fn array<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> ArrayD<f32> {
    let shape = tensor.dims();
    ArrayD::from_shape_vec(IxDyn(&shape), tensor.into_data().iter::<f32>().collect()).expect("a tensor holds its shape")
}

/// Returns the largest absolute value among the finite entries.
pub fn scale(values: &ArrayD<f32>) -> f32 {
    values.iter().filter(|v| v.is_finite()).fold(0.0, |m, v| m.max(v.abs()))
}

/// Returns the largest absolute difference between two arrays of equal shape; infinite if an entry
/// is NaN.
pub fn largest_difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape(), "the shapes differ");
    let differences = a.iter().zip(b).map(|(x, y)| if x == y { 0.0 } else { (x - y).abs() });
    differences.fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) })
}

/// Tolerance for one entry: it may differ from the expected entry by `(absolute + relative *
/// |expected|) * widening`.
///
/// The absolute part covers float32 rounding after larger numbers cancel. The relative part covers
/// rounding of large entries and keeps small entries strict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Absolute part, on the scale of the entries.
    pub absolute: f32,
    /// Relative part, as a share of the expected entry.
    pub relative: f32,
    /// Factor on both parts, for devices that round more than a CPU does.
    pub widening: f32,
}

impl Tolerance {
    /// Returns a tolerance for results from a CPU.
    pub const fn new(absolute: f32, relative: f32) -> Self {
        Self { absolute, relative, widening: 1.0 }
    }

    /// Returns the tolerance for a backend. A GPU adds products in another order, and its functions
    /// have fewer bits, so effects may differ by a thousandth there.
    #[must_use]
    pub fn on<B: Backend>(self) -> Self {
        let widening = if rewire_tensor::is_synchronous::<B>(&Default::default()) { 1.0 } else { 700.0 };
        Self { widening, ..self }
    }

    /// Multiplies the absolute part by `unit`, to put it on the scale of a table.
    #[must_use]
    pub fn times(self, unit: f32) -> Self {
        Self { absolute: self.absolute * unit, ..self }
    }

    fn allows(self, difference: f32, expected: f32) -> bool {
        difference <= (self.absolute + self.relative * expected.abs()) * self.widening
    }
}

impl From<f32> for Tolerance {
    fn from(absolute: f32) -> Self {
        Self::new(absolute, 0.0)
    }
}

/// Largest share of the nonzero entries that may lie below the absolute part of a tolerance. A test
/// would not notice if such an entry had the wrong sign or were missing.
const LARGEST_SHARE_BELOW: f64 = 0.05;

/// Expected entries below this share of the largest entry count as zeros, because float64 leaves
/// such numbers after terms cancel.
const ZERO: f32 = 1e-13;

/// Returns the share of the nonzero expected entries whose size is below `absolute`; 0 if all are
/// zeros.
pub fn share_below(expected: &ArrayD<f32>, absolute: f32) -> f64 {
    let zero = ZERO * scale(expected);
    let nonzero = || expected.iter().map(|v| v.abs()).filter(move |v| *v > zero && v.is_finite());
    let below = nonzero().filter(|v| *v < absolute).count();
    below as f64 / nonzero().count().max(1) as f64
}

/// Asserts that each entry is within `tolerance` of the expected entry.
///
/// # Panics
/// If an entry is not, or if the absolute part of `tolerance` exceeds more than a twentieth of the
/// nonzero expected entries, because those entries would not be tested.
pub fn assert_close(actual: &ArrayD<f32>, expected: &ArrayD<f32>, tolerance: impl Into<Tolerance>, what: &str) {
    let tolerance = tolerance.into();
    let share = share_below(expected, tolerance.absolute);
    assert!(
        share <= LARGEST_SHARE_BELOW,
        "{what}: {:.0}% of the expected entries are below the tolerance of {:e}: those entries are not tested",
        100.0 * share,
        tolerance.absolute
    );
    assert_within(actual, expected, tolerance, what);
}

/// Asserts that each entry is within `tolerance` of the expected entry. Unlike [`assert_close`], it
/// accepts tolerances that exceed the entries, for random models whose effects may all be rounding.
///
/// # Panics
/// If an entry is not.
pub fn assert_within(actual: &ArrayD<f32>, expected: &ArrayD<f32>, tolerance: impl Into<Tolerance>, what: &str) {
    let tolerance = tolerance.into();
    assert_eq!(actual.shape(), expected.shape(), "{what}: the shapes differ");
    for ((index, expected), actual) in expected.indexed_iter().zip(actual) {
        let difference = (actual - expected).abs();
        let place = ndarray::Dimension::slice(&index);
        assert!(
            actual == expected || tolerance.allows(difference, *expected),
            "{what} at {place:?}: {actual:e} differs by {difference:e} from {expected:e}; allowed are {tolerance:?}"
        );
    }
}

/// Returns the largest difference between two computations of one metric on random models, as a
/// share of the largest metric. On a float64 backend only the rounding of the stored metrics to
/// float32 differs: 500 random sweeps and 500 random paths had no difference. On a float32 backend
/// every step rounds: the same sweeps and paths differed by up to 1.7e-6, and a norm with a small
/// variance magnifies that.
pub fn rounding<B: Backend>() -> f32 {
    if B::FloatElem::dtype() == DType::F64 { 5e-7 } else { 2e-5 }
}

/// Returns the largest allowed error of effects: a ten-thousandth on the CPU; a thousandth on a
/// GPU, which adds products in another order and whose functions have fewer bits.
pub fn tolerance<B: Backend>() -> f32 {
    if rewire_tensor::is_synchronous::<B>(&Default::default()) { 1e-4 } else { 1e-3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[f32]) -> ArrayD<f32> {
        ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec()).unwrap()
    }

    #[test]
    #[should_panic(expected = "33% of the expected entries are below the tolerance")]
    fn a_tolerance_above_many_of_the_entries_is_refused() {
        let expected = values(&[1.0, 0.5, 1e-5, 0.0]);
        assert_close(&expected, &expected, Tolerance::new(1e-4, 0.0), "equal");
    }

    #[test]
    #[should_panic(expected = "at [1]")]
    fn a_small_entry_with_the_wrong_sign_is_detected() {
        assert_close(&values(&[1.0, -1e-5]), &values(&[1.0, 1e-5]), Tolerance::new(1e-6, 1e-3), "signs");
    }

    #[test]
    fn zeros_that_float64_did_not_cancel_need_not_exceed_the_tolerance() {
        assert_close(&values(&[1.0, 0.0]), &values(&[1.0, 1e-17]), Tolerance::new(1e-6, 1e-3), "zeros");
    }
}
