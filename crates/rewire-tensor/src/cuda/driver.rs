//! What the driver says: which GPUs there are, and how much of their memory is free.

use std::any::Any;

use burn::tensor::backend::Backend;
use burn_cubecl::cubecl::Runtime;
use burn_cubecl::cubecl::cuda::{CudaDevice, CudaRuntime};
use cudarc::driver::CudaContext;

use crate::size::Memory;

/// Why nothing can be computed on a GPU here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The driver's library is not there.
    #[error("there is no NVIDIA driver on this machine (no libcuda)")]
    NoDriver,
    /// The driver is there and does not work.
    #[error("the NVIDIA driver answers: {0}")]
    Driver(String),
    /// The compiler of kernels is not there.
    #[error("there is no CUDA compiler library on this machine (no libnvrtc); it comes with the CUDA toolkit")]
    NoCompiler,
    /// The compiler's header files are not there.
    #[error("there are no CUDA header files in {0}; set CUDA_PATH to where the CUDA toolkit is")]
    NoHeaders(String),
}

/// How many GPUs this process can compute on.
///
/// # Errors
/// [`CudaError`], where there is no driver, or not what kernels are compiled with.
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

/// The device as CUDA's, if it is one.
fn as_cuda<B: Backend>(device: &B::Device) -> Option<&CudaDevice> {
    (device as &dyn Any).downcast_ref::<CudaDevice>()
}

/// How many products a GPU computes in one go: cubek 0.2's plain kernel has one place in a launch's third axis for each, and is refused
/// with more, even where it was found to be the fastest for a few products of the same sizes.
pub(crate) fn max_matmuls_at_once<B: Backend>(device: &B::Device) -> usize {
    as_cuda::<B>(device).map_or(usize::MAX, |_| u16::MAX.into())
}

/// What a GPU's memory is; nothing if the device is none.
pub(crate) fn memory<B: Backend>(device: &B::Device) -> Option<Memory> {
    let device = as_cuda::<B>(device)?;
    let context = CudaContext::new(device.index).ok()?;
    let (free, total) = context.mem_get_info().ok()?;
    // The backend keeps what it has asked the driver for; what of that is unused is as good as free.
    let pooled =
        CudaRuntime::client(device).memory_usage().map_or(0, |u| u.bytes_reserved.saturating_sub(u.bytes_in_use));
    Some(Memory { free: free as u64 + pooled, total: total as u64, name: context.name().ok() })
}
