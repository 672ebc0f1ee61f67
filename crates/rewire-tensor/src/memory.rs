//! How much memory a device has.

use burn::tensor::backend::Backend;

use crate::size::Memory;

/// The memory of a GPU; nothing for the CPU backends, whose memory is the system's.
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
