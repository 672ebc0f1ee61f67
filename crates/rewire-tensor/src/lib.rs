//! What differs from device to device: how exact its products are, how much memory it has, and whether it failed.
//!
//! Everything here is about graphics processors; on the CPU backends products are of float32, memory is the system's, and what
//! fails says so.
//!
//! ```
//! use burn::backend::Flex;
//! use burn::tensor::Tensor;
//! use rewire_tensor::product;
//!
//! let a = Tensor::<Flex, 2>::from_floats([[1.0, 2.0]], &Default::default());
//! let b = Tensor::<Flex, 2>::from_floats([[3.0], [4.0]], &Default::default());
//! assert_eq!(product(a, b).into_scalar(), 11.0);
//! ```

#![cfg_attr(not(feature = "cuda"), forbid(unsafe_code))]

#[cfg(feature = "cuda")]
mod cuda;
mod faults;
mod memory;
mod precision;
mod products;
mod size;

#[cfg(feature = "cuda")]
pub use cuda::{CudaError, devices};
pub use faults::{Fault, computes_here, install_fault_hook, watched};
pub use memory::memory;
pub use precision::{Precision, float32, in_type_of, zeros_like};
pub use products::{Products, product, products, set_products};
pub use size::Memory;
