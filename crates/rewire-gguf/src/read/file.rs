//! A GGUF file: the header, the metadata and the tensors.

use std::path::{Path, PathBuf};

use crate::error::GgufError;
use crate::read::cursor::Cursor;
use crate::read::metadata::Metadata;
use crate::read::tensors::{Entry, Tensor, place};

const MAGIC: &[u8; 4] = b"GGUF";

/// The first bytes of the formats before GGUF.
const OLDER: [&[u8; 4]; 4] = [b"lmgg", b"fmgg", b"tjgg", b"algg"];

/// The versions that are read. Version 1 had 32-bit lengths, and no published model has it today.
const VERSIONS: [u32; 2] = [2, 3];

/// Most tensors and most keys. Known files have fewer than 3,000 tensors and 200 keys.
const MOST_ENTRIES: u64 = 1 << 16;

/// Multiple at which tensors begin in a file that does not give one.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The largest alignment that is read.
const MOST_ALIGNMENT: u64 = 1 << 16;

/// A GGUF file, whose values stay in its bytes.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    path: PathBuf,
    metadata: Metadata<'a>,
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Gguf<'a> {
    /// Reads the header, the metadata and the places of all tensors, and checks that the file has
    /// all of their values. Errors name the file `path`.
    ///
    /// # Errors
    /// [`GgufError`], which names the key or the tensor that is wrong.
    pub fn read(bytes: &'a [u8], path: &Path) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let [n_tensors, n_keys] = read_header(&mut cursor).map_err(|reason| GgufError::file(path, reason))?;
        let metadata = Metadata::read(&mut cursor, n_keys, path)?;
        let entries = Entry::read_all(&mut cursor, n_tensors, path)?;
        let alignment = alignment(&metadata)?;
        let start = cursor.position().next_multiple_of(alignment as usize);
        // Without tensors, the file may end before the next multiple.
        let data = bytes.get(start..).unwrap_or_default();
        let tensors = place(entries, data, alignment, path)?;
        Ok(Self { path: path.into(), metadata, tensors })
    }

    /// Returns the path that errors name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata<'a> {
        &self.metadata
    }

    /// Returns the tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// Returns the tensor with a name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// Reads the header. Returns the number of tensors and of keys.
fn read_header(cursor: &mut Cursor<'_>) -> Result<[u64; 2], String> {
    let magic: [u8; 4] = cursor.array()?;
    if OLDER.contains(&&magic) {
        return Err("it is a GGML file, the format before GGUF; take a GGUF file of this model".to_owned());
    }
    if magic != *MAGIC {
        return Err("it is not a GGUF file: it does not begin with GGUF".to_owned());
    }
    let version = cursor.u32()?;
    // A small number has its bytes at the other end in the other byte order.
    if version != 0 && version & 0xffff == 0 {
        return Err("it is a big-endian GGUF file; Rewire reads little-endian files".to_owned());
    }
    if !VERSIONS.contains(&version) {
        return Err(format!("it has version {version} of GGUF; Rewire reads versions 2 and 3"));
    }
    let [n_tensors, n_keys] = [cursor.u64()?, cursor.u64()?];
    for (count, items) in [(n_tensors, "tensors"), (n_keys, "keys")] {
        if count > MOST_ENTRIES {
            return Err(format!("it claims {count} {items}; at most {MOST_ENTRIES} are allowed"));
        }
    }
    Ok([n_tensors, n_keys])
}

fn alignment(metadata: &Metadata<'_>) -> Result<u64, GgufError> {
    const KEY: &str = "general.alignment";
    match metadata.whole(KEY)?.unwrap_or(DEFAULT_ALIGNMENT) {
        alignment if alignment.is_power_of_two() && alignment <= MOST_ALIGNMENT => Ok(alignment),
        other => Err(metadata.refuse(KEY, format!("it is {other}, not a power of two up to {MOST_ALIGNMENT}"))),
    }
}
