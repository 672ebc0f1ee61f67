//! Queries the driver: the number of GPUs, and their free memory.

use std::any::Any;

use burn::tensor::backend::Backend;
use burn_cubecl::cubecl::Runtime;
use burn_cubecl::cubecl::cuda::{CudaDevice, CudaRuntime};
use cudarc::driver::CudaContext;

use crate::size::Memory;

/// Why this process cannot compute on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The driver's library is missing.
    #[error("there is no NVIDIA driver on this machine (no libcuda); install the driver, or compute on the CPU")]
    NoDriver,
    /// The driver returned an error.
    #[error("the NVIDIA driver failed: {0}")]
    Driver(String),
    /// The library that compiles kernels is missing.
    #[error("there is no CUDA compiler library on this machine (no libnvrtc); install the CUDA toolkit")]
    NoCompiler,
    /// The compiler's header files are missing.
    #[error("there are no CUDA header files in {0}; set CUDA_PATH to the directory of the CUDA toolkit")]
    NoHeaders(String),
}

/// Returns the number of GPUs that this process can compute on.
///
/// # Errors
/// [`CudaError`] if there is no working driver, or if the compiler library or its header files are
/// missing.
pub fn devices() -> Result<usize, CudaError> {
    #[expect(unsafe_code, reason = "loads the driver's and the compiler's own libraries, as using them would")]
    let (driver, compiler) =
        unsafe { (cudarc::driver::sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
    if !driver {
        return Err(CudaError::NoDriver);
    }
    let count = CudaContext::device_count().map_err(|error| CudaError::Driver(error.to_string()))?;
    if !compiler {
        return Err(CudaError::NoCompiler);
    }
    let toolkit = cubecl::cuda::install::cuda_path();
    let headers = toolkit.map_or_else(|| "/usr/local/cuda/include".into(), |path| path.join("include"));
    match headers.join("cuda_runtime.h").exists() {
        true => Ok(usize::try_from(count).unwrap_or(0)),
        false => Err(CudaError::NoHeaders(headers.display().to_string())),
    }
}

/// Returns the device as a CUDA device, if it is one.
fn as_cuda<B: Backend>(device: &B::Device) -> Option<&CudaDevice> {
    (device as &dyn Any).downcast_ref::<CudaDevice>()
}

/// Returns the largest number of matmuls that a GPU computes in one batch.
///
/// The naive kernel of cubek 0.2 uses one index of a launch's third axis per matmul, and larger
/// batches are refused. Autotuning may select this kernel for a small batch and then reuse it for
/// larger batches of the same sizes.
pub(crate) fn max_matmuls_at_once<B: Backend>(device: &B::Device) -> usize {
    as_cuda::<B>(device).map_or(usize::MAX, |_| u16::MAX.into())
}

/// Returns the memory of a GPU, or `None` if the device is not a GPU.
pub(crate) fn memory<B: Backend>(device: &B::Device) -> Option<Memory> {
    let device = as_cuda::<B>(device)?;
    let context = CudaContext::new(device.index).ok()?;
    let (free, total) = context.mem_get_info().ok()?;
    // The backend keeps the memory that it has allocated. The unused part of it counts as free.
    let pooled =
        CudaRuntime::client(device).memory_usage().map_or(0, |u| u.bytes_reserved.saturating_sub(u.bytes_in_use));
    Some(Memory { free: free as u64 + pooled, total: total as u64, name: context.name().ok() })
}
