//! The crate's tests against the files that the Python package `gguf` writes, in one program.

mod damaged;
mod models;
mod tokenizers;
mod values;
// The other tests of GGUF files write them with it, too.
#[path = "../../../../tests/src/gguf_file.rs"]
#[allow(unreachable_pub)]
mod writer;

use std::path::{Path, PathBuf};

use rewire_gguf::{Gguf, GgufError};

/// Returns the path of a fixture of tests/fixtures/gguf_files.py.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/gguf").join(name)
}

/// Reads bytes as `model.gguf`.
fn read(bytes: &[u8]) -> Result<Gguf<'_>, GgufError> {
    Gguf::read(bytes, Path::new("model.gguf"))
}
