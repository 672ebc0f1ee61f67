//! burn's CUDA backend: everything that would change with a newer burn is here.

mod driver;
mod float32;
mod launches;
mod units;

pub(crate) use driver::memory;
pub use driver::{CudaError, devices};
pub(crate) use float32::float32_product;
pub use launches::{count_launches, launches};
