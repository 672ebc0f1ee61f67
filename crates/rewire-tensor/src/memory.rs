//! Reads the memory of a device.

use burn::tensor::backend::Backend;

use crate::size::Memory;

/// Returns the memory of a GPU. Returns `None` for the CPU backends, which use the system's memory.
#[must_use]
pub fn memory<B: Backend>(device: &B::Device) -> Option<Memory> {
    #[cfg(feature = "cuda")]
    return crate::cuda::memory::<B>(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}
