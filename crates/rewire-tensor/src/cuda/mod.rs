//! The code for burn's CUDA backend. A newer burn would change only this folder.

mod driver;
mod float32;
mod simt_matmul;

pub use driver::{CudaError, devices};
pub(crate) use driver::{max_matmuls_at_once, memory};
pub(crate) use float32::float32_matmul;
