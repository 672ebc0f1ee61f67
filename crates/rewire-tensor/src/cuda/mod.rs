//! burn's CUDA backend: everything that would change with a newer burn is here.

mod driver;
mod float32;
mod units;

pub use driver::{CudaError, devices};
pub(crate) use driver::{memory, most_products_at_once};
pub(crate) use float32::float32_product;
