//! Matrix products, and how exact they are.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::float32;

/// How products of float32 tensors are computed where a device has units for shorter numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// With the 24 bits that the numbers have.
    Float32,
    /// On an NVIDIA GPU with matrix units, the factors may be rounded to the 11 bits of TF32: several times faster, and off by up to
    /// a thousandth of the largest terms. Which products are is the backend's choice, by what is fastest. Elsewhere as `Float32`.
    Tf32,
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Products::Float32 => "float32",
            Products::Tf32 => "tf32",
        })
    }
}

impl FromStr for Products {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "float32" => Ok(Products::Float32),
            "tf32" => Ok(Products::Tf32),
            other => Err(format!("no products `{other}`; there are float32 and tf32")),
        }
    }
}

// Of the whole process, as the peers have it: a backend's gradients are computed where no setting can be handed down.
static TF32: AtomicBool = AtomicBool::new(false);

/// Sets how products of float32 are computed, in the whole process, from now on.
pub fn set_products(products: Products) {
    TF32.store(products == Products::Tf32, Ordering::Relaxed);
}

/// How products of float32 are computed: [`Products::Float32`] unless it was set otherwise.
#[must_use]
pub fn products() -> Products {
    if TF32.load(Ordering::Relaxed) { Products::Tf32 } else { Products::Float32 }
}

/// `a @ b` over the last two axes, `[.., n, k]` and `[.., k, m]`, as exact as [`products`] says, gradients included. The axes
/// before are the same, or 1 in one of the two. Factors of different numbers are multiplied in float32.
///
/// # Panics
/// If the shapes do not fit, as burn's own product does.
#[must_use]
pub fn product<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    assert_eq!(a.dims()[D - 1], b.dims()[D - 2], "the columns of {:?} are not the rows of {:?}", a.dims(), b.dims());
    let (a, b) = if a.dtype() == b.dtype() { (a, b) } else { (float32(a), float32(b)) };
    #[cfg(feature = "cuda")]
    let (a, b) = match products() {
        Products::Tf32 => (a, b),
        Products::Float32 => match crate::cuda::float32_product(a, b) {
            Ok(product) => return product,
            Err(factors) => factors,
        },
    };
    a.matmul(b)
}
