//! Comparing arrays of numbers, and saying where they differ most.

use burn::tensor::{DType, Element, Tensor, backend::Backend};
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

/// The largest absolute difference of two arrays of one shape; infinite if an entry is NaN.
pub fn largest_difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape(), "the shapes differ");
    let differences = a.iter().zip(b).map(|(x, y)| if x == y { 0.0 } else { (x - y).abs() });
    differences.fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) })
}

/// How far an entry may be from the expected one: `(absolute + relative * |expected|) * widening`.
///
/// The absolute part covers what float32 leaves when larger numbers cancel. The relative part lets
/// large entries round, without letting small ones be anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// In the unit of the entries.
    pub absolute: f32,
    /// A share of the expected entry.
    pub relative: f32,
    /// A factor on both, for devices that round more than a CPU does.
    pub widening: f32,
}

impl Tolerance {
    /// A tolerance for results of a CPU.
    pub const fn new(absolute: f32, relative: f32) -> Self {
        Self { absolute, relative, widening: 1.0 }
    }

    /// The tolerance for results of a backend. A GPU adds products in another order, and its
    /// functions have fewer bits: effects may be off by a thousandth there.
    #[must_use]
    pub fn on<B: Backend>(self) -> Self {
        let widening = if rewire_tensor::is_synchronous::<B>(&Default::default()) { 1.0 } else { 700.0 };
        Self { widening, ..self }
    }

    /// Multiplies the absolute part, to put it in the unit of a table.
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

/// The largest share of the entries, zeros aside, that may lie below the absolute part of a
/// tolerance. Such an entry could have any sign, or be missing, unnoticed.
const LARGEST_SHARE_BELOW: f64 = 0.05;

/// Expected entries below this share of the largest count as zeros: float64 leaves them where terms
/// cancel.
const ZERO: f32 = 1e-13;

/// The share of the expected entries, zeros aside, whose size is below `absolute`; 0 if all are
/// zeros.
pub fn share_below(expected: &ArrayD<f32>, absolute: f32) -> f64 {
    let zero = ZERO * scale(expected);
    let nonzero = || expected.iter().map(|v| v.abs()).filter(move |v| *v > zero && v.is_finite());
    let below = nonzero().filter(|v| *v < absolute).count();
    below as f64 / nonzero().count().max(1) as f64
}

/// Panics if an entry is further from the expected one than `tolerance` allows, or if the absolute
/// part of `tolerance` exceeds more than a twentieth of the expected entries, zeros aside: those
/// would not be tested.
pub fn assert_close(actual: &ArrayD<f32>, expected: &ArrayD<f32>, tolerance: impl Into<Tolerance>, what: &str) {
    let tolerance = tolerance.into();
    let share = share_below(expected, tolerance.absolute);
    assert!(
        share <= LARGEST_SHARE_BELOW,
        "{what}: {:.0}% of the expected entries are below the tolerance of {:e}: nothing is tested of those",
        100.0 * share,
        tolerance.absolute
    );
    assert_within(actual, expected, tolerance, what);
}

/// Panics if an entry is further from the expected one than `tolerance` allows. Unlike
/// [`assert_close`], takes tolerances that exceed the entries: for random models whose effects may
/// all be rounding.
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

/// How far apart two routes to one metric may end on random models, as a share of the largest
/// metric. On a float64 backend only the rounding of the stored metrics to float32 differs: 500
/// random sweeps and 500 random paths differed by nothing. On a float32 backend every step rounds:
/// the same sweeps and paths differed by up to 1.7e-6, and a norm of a small variance magnifies
/// that.
pub fn rounding<B: Backend>() -> f32 {
    if B::FloatElem::dtype() == DType::F64 { 5e-7 } else { 2e-5 }
}

/// How far effects may be from what they should be: a ten-thousandth on the CPU; a thousandth on a GPU, whose products add in another
/// order and whose functions are of fewer bits.
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
