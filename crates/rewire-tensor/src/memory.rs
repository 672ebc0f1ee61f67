//! How much memory a device has.

use burn::tensor::backend::Backend;

/// A device's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// What can still be taken.
    pub free: u64,
    /// All of it.
    pub total: u64,
    /// What the device calls itself, if it does.
    pub name: Option<String>,
}

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
