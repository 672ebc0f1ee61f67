//! The cost of a computation: the floating-point operations of its matmuls, and the bytes that it
//! must move.

use std::iter::Sum;
use std::ops::{Add, Mul};

/// The cost of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations of matmuls: `2 n a b` for `[n, a]` times `[a, b]`.
    pub operations: f64,
    /// Bytes moved to and from a device's memory, if the steps between two matmuls cost nothing.
    ///
    /// Each pass moves the weights of its blocks once. Each row of a pass moves the residual stream
    /// into and out of each block.
    pub bytes: f64,
}

impl Cost {
    /// Returns the least time in seconds on a device that does `rate` operations per second and
    /// moves `bandwidth` bytes per second.
    #[must_use]
    pub fn seconds(self, rate: f64, bandwidth: f64) -> f64 {
        (self.operations / rate).max(self.bytes / bandwidth)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { operations: self.operations + other.operations, bytes: self.bytes + other.bytes }
    }
}

impl Mul<f64> for Cost {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { operations: self.operations * times, bytes: self.bytes * times }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}
