//! Matmul, and its precision.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::precision::to_f32;

/// The precision of float32 matmul on devices with units for shorter element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatmulPrecision {
    /// The full 24 significant bits of float32.
    Float32,
    /// The 11 significant bits of TF32, allowed on an NVIDIA GPU with matrix units. This is several
    /// times faster, with errors of up to a thousandth of the largest terms. The backend rounds the
    /// factors of those matmuls that it finds faster with TF32. On other devices, this is the same
    /// as `Float32`.
    Tf32,
}

impl fmt::Display for MatmulPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MatmulPrecision::Float32 => "float32",
            MatmulPrecision::Tf32 => "tf32",
        })
    }
}

impl FromStr for MatmulPrecision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "float32" => Ok(MatmulPrecision::Float32),
            "tf32" => Ok(MatmulPrecision::Tf32),
            other => Err(format!("unknown matmul precision `{other}`; use float32 or tf32")),
        }
    }
}

// One setting for the whole process, as in other libraries, because backends compute gradients in
// code that takes no setting.
static TF32: AtomicBool = AtomicBool::new(false);

/// Sets the precision of float32 matmul in the whole process, from now on.
pub fn set_matmul_precision(products: MatmulPrecision) {
    TF32.store(products == MatmulPrecision::Tf32, Ordering::Relaxed);
}

/// Returns the precision of float32 matmul. It is [`MatmulPrecision::Float32`] unless the program
/// set another one.
#[must_use]
pub fn matmul_precision() -> MatmulPrecision {
    if TF32.load(Ordering::Relaxed) { MatmulPrecision::Tf32 } else { MatmulPrecision::Float32 }
}

/// Returns `a @ b` over the last two axes, `[.., n, k]` and `[.., k, m]`, with the precision that
/// [`matmul_precision`] returns. The precision holds for gradients too.
///
/// The leading axes must be equal, or have size 1 in one of the tensors. Tensors of different
/// element types are multiplied in float32.
///
/// # Panics
/// If the shapes do not fit, like burn's own matmul.
#[must_use]
pub fn matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    assert_eq!(
        a.dims()[D - 1],
        b.dims()[D - 2],
        "matmul of {:?} and {:?}: the columns of the first are not as many as the rows of the second",
        a.dims(),
        b.dims()
    );
    let (a, b) = if a.dtype() == b.dtype() { (a, b) } else { (to_f32(a), to_f32(b)) };
    let most = max_matmuls_at_once::<B>(&a.device());
    matmul_chunked(a, b, most)
}

/// Returns the largest number of matmuls that the device computes in one batch.
fn max_matmuls_at_once<B: Backend>(device: &B::Device) -> usize {
    #[cfg(feature = "cuda")]
    return crate::cuda::max_matmuls_at_once::<B>(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        usize::MAX
    }
}

/// Returns `a @ b`, with at most `most` matmuls in one batch.
fn matmul_chunked<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>, most: usize) -> Tensor<B, D> {
    let (of_a, of_b) = (a.dims(), b.dims());
    let sizes = || (0..D - 2).map(|axis| of_a[axis].max(of_b[axis]));
    let all: usize = sizes().product();
    let longest = sizes().enumerate().max_by_key(|(_, size)| *size);
    let Some((axis, size)) = longest.filter(|_| all > most) else { return matmul_once(a, b) };
    let step = (size / all.div_ceil(most)).max(1);
    let part = |tensor: &Tensor<B, D>, from: usize| match tensor.dims()[axis] {
        1 => tensor.clone(),
        _ => tensor.clone().narrow(axis, from, step.min(size - from)),
    };
    let parts = (0..size).step_by(step).map(|from| matmul_chunked(part(&a, from), part(&b, from), most));
    Tensor::cat(parts.collect(), axis)
}

fn matmul_once<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    #[cfg(feature = "cuda")]
    let (a, b) = match matmul_precision() {
        MatmulPrecision::Tf32 => (a, b),
        MatmulPrecision::Float32 => match crate::cuda::float32_matmul(a, b) {
            Ok(product) => return product,
            Err(factors) => factors,
        },
    };
    a.matmul(b)
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Distribution;

    use super::*;

    type Tracked = Autodiff<Flex>;

    /// Returns the product, and the gradients of the sum of its squares.
    fn with_gradients(a: &Tensor<Tracked, 4>, b: &Tensor<Tracked, 4>, most: usize) -> [Tensor<Flex, 4>; 3] {
        let (a, b) = (a.clone().detach().require_grad(), b.clone().detach().require_grad());
        let out = matmul_chunked(a.clone(), b.clone(), most);
        let gradients = (out.clone() * out.clone()).sum().backward();
        [out.inner(), a.grad(&gradients).unwrap(), b.grad(&gradients).unwrap()]
    }

    #[test]
    fn chunked_matmuls_equal_whole_ones_with_gradients() {
        let device = Default::default();
        let random = |shape: [usize; 4]| Tensor::<Tracked, 4>::random(shape, Distribution::Default, &device);
        let shapes = [([7, 3, 2, 4], [7, 3, 4, 5]), ([7, 1, 2, 4], [1, 3, 4, 5]), ([1, 9, 2, 4], [2, 9, 4, 1])];
        for (of_a, of_b) in shapes {
            let (a, b) = (random(of_a), random(of_b));
            let expected = with_gradients(&a, &b, usize::MAX);
            for most in [1, 2, 3, 5, 20] {
                for (found, expected) in with_gradients(&a, &b, most).into_iter().zip(expected.clone()) {
                    found
                        .into_data()
                        .assert_approx_eq::<f32>(&expected.into_data(), burn::tensor::Tolerance::absolute(1e-5));
                }
            }
        }
    }

    #[test]
    fn matmuls_without_batch_axes_are_not_chunked() {
        let device = Default::default();
        let ones = |shape| Tensor::<Flex, 2>::ones(shape, &device);
        assert_eq!(matmul_chunked(ones([300, 2]), ones([2, 300]), 1).dims(), [300, 300]);
    }
}
