//! Tensor operations that depend on the device: matmul precision, free memory, and failures.
//!
//! These differences concern GPUs. On the CPU backends, matmul keeps float32, memory is the
//! system's, and a failure is a panic.
//!
//! ```
//! use burn::backend::Flex;
//! use burn::tensor::Tensor;
//! use rewire_tensor::matmul;
//!
//! let a = Tensor::<Flex, 2>::from_floats([[1.0, 2.0]], &Default::default());
//! let b = Tensor::<Flex, 2>::from_floats([[3.0], [4.0]], &Default::default());
//! assert_eq!(matmul(a, b).into_scalar(), 11.0);
//! ```

#![cfg_attr(not(feature = "cuda"), forbid(unsafe_code))]

#[cfg(feature = "cuda")]
mod cuda;
mod faults;
mod matmul;
mod memory;
mod precision;
mod size;

#[cfg(feature = "cuda")]
pub use cuda::{CudaError, devices};
pub use faults::{DeviceError, catch_device_faults, install_fault_hook, is_synchronous};
pub use matmul::{MatmulPrecision, matmul, matmul_precision, set_matmul_precision};
pub use memory::memory;
pub use precision::{Precision, cast_like, to_f32, zeros_like};
pub use size::Memory;
