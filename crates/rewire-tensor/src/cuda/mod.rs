//! burn's CUDA backend: everything that would change with a newer burn is here.

mod driver;
mod float32;
mod simt_matmul;

pub use driver::{CudaError, devices};
pub(crate) use driver::{max_matmuls_at_once, memory};
pub(crate) use float32::float32_matmul;
