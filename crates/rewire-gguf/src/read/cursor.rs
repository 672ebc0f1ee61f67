//! A place in the bytes of a file. Every read is checked against the end of the bytes.

use rewire_input::quoted;

/// The unread part of a file's bytes. Numbers are little-endian. An error is the reason alone; the
/// caller knows the key or the tensor.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the number of bytes that were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Takes the next `count` bytes.
    pub(crate) fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or_else(|| {
            let plural = if count == 1 { "" } else { "s" };
            format!("the file is cut off: {count} byte{plural} should follow byte {}, and {} do", self.at, rest.len())
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    /// Takes the next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a string: its length in bytes, and its UTF-8.
    pub(crate) fn string(&mut self) -> Result<&'a str, String> {
        let length = self.u64()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            format!("the text after {} is not UTF-8", quoted(&valid))
        })
    }
}
