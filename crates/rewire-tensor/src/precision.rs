//! The element types of weights and activations.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, FloatDType, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

/// The element type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// 32 bits.
    #[serde(rename = "f32")]
    Float32,
    /// 16 bits, of which 8 are significant. Norms, attention scores, softmax, activation functions,
    /// logits and metrics stay in float32.
    #[serde(rename = "bf16")]
    BFloat16,
}

impl Precision {
    /// Returns burn's element type.
    #[must_use]
    pub fn dtype(self) -> FloatDType {
        match self {
            Precision::Float32 => FloatDType::F32,
            Precision::BFloat16 => FloatDType::BF16,
        }
    }

    /// Returns the number of bytes per element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Precision::Float32 => 4,
            Precision::BFloat16 => 2,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Float32 => "f32",
            Precision::BFloat16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f32" => Ok(Precision::Float32),
            "bf16" => Ok(Precision::BFloat16),
            other => Err(format!("unknown dtype `{other}`; use f32 or bf16")),
        }
    }
}

/// Casts `x` to the element type of `like`.
#[must_use]
pub fn cast_like<B: Backend, const D: usize, const E: usize>(x: Tensor<B, D>, like: &Tensor<B, E>) -> Tensor<B, D> {
    in_type(x, like.dtype())
}

/// Casts `x` to float32 if its element type is shorter.
#[must_use]
pub fn to_f32<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.cast(FloatDType::F32),
        _ => x,
    }
}

fn in_type<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    // Even a cast to the same type would add a step to the autodiff tape.
    if x.dtype() == dtype { x } else { x.cast(FloatDType::from(dtype)) }
}

/// Returns zeros of this shape, with the element type and on the device of `like`.
#[must_use]
pub fn zeros_like<B: Backend, const D: usize, const E: usize>(dims: [usize; D], like: &Tensor<B, E>) -> Tensor<B, D> {
    Tensor::zeros(dims, (&like.device(), like.dtype()))
}
