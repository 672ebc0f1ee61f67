//! The size of a device's memory.

/// A device's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that can still be allocated.
    pub free: u64,
    /// All bytes.
    pub total: u64,
    /// The device's name, if it has one.
    pub name: Option<String>,
}
