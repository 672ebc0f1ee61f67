//! The size of a device's memory.

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
