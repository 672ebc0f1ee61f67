//! Checks of a file's content: by hash if the ETag is a hash, and by format.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::names::{Etag, FileName};

/// Largest cached file that is hashed at each use. Larger files are checked by format.
pub(crate) const HASHED_AT_EACH_USE: u64 = 64 << 20;

/// Longest header of a safetensors file: the limit of the safetensors library.
const LONGEST_HEADER: u64 = 100_000_000;

/// A running hash of the same kind as an ETag.
pub(crate) enum Hasher {
    /// SHA-256 of the content. Files in large-file storage have it.
    Sha256(Sha256),
    /// SHA-1 of the git blob `blob LENGTH\0CONTENT`. Files in the git repository have it.
    Git(Sha1),
}

impl Hasher {
    /// Starts a hash for a file of this size; `None` if the ETag is no hash.
    pub(crate) fn of(etag: &Etag, size: u64) -> Option<Self> {
        let hexadecimal = etag.as_str().bytes().all(|b| b.is_ascii_hexdigit());
        match etag.as_str().len() {
            64 if hexadecimal => Some(Self::Sha256(Sha256::new())),
            40 if hexadecimal => Some(Self::Git(Sha1::new().chain_update(format!("blob {size}\0")))),
            _ => None,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    /// Compares the hash with the ETag.
    pub(crate) fn check(self, etag: &Etag) -> Result<(), String> {
        let found = match self {
            Self::Sha256(hash) => hexadecimal(&hash.finalize()),
            Self::Git(hash) => hexadecimal(&hash.finalize()),
        };
        match found.eq_ignore_ascii_case(etag.as_str()) {
            true => Ok(()),
            false => Err(format!("its hash is {found} instead of {}", etag.as_str())),
        }
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks the hash of a small cached file, and the format of a large one or one without a hash.
///
/// The inner error describes the fault.
pub(crate) fn check_cached(path: &Path, name: &FileName, etag: Option<&Etag>) -> io::Result<Result<(), String>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let hasher = etag.filter(|_| size <= HASHED_AT_EACH_USE).and_then(|etag| Some((etag, Hasher::of(etag, size)?)));
    let Some((etag, mut hasher)) = hasher else { return check_form(path, name) };
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.check(etag)),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Checks that a `.json` file is JSON, and that a `.safetensors` file has the length that its
/// header gives.
///
/// The inner error describes the fault.
pub(crate) fn check_form(path: &Path, name: &FileName) -> io::Result<Result<(), String>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let fault = if name.has_extension("json") {
        json_fault(BufReader::new(file))
    } else if name.has_extension("safetensors") {
        safetensors_fault(file, size)?
    } else {
        None
    };
    Ok(fault.map_or(Ok(()), Err))
}

fn json_fault(reader: impl Read) -> Option<String> {
    let json: Result<IgnoredAny, _> = serde_json::from_reader(reader);
    json.err().map(|fault| format!("it is not JSON ({fault})"))
}

/// Compares the length with the layout: 8 bytes of header length, the header, the tensors.
fn safetensors_fault(mut file: File, size: u64) -> io::Result<Option<String>> {
    let mut length = [0; 8];
    if size < 8 {
        return Ok(Some("it is shorter than a safetensors header".to_owned()));
    }
    file.read_exact(&mut length)?;
    let header = u64::from_le_bytes(length);
    if header > LONGEST_HEADER || header + 8 > size {
        return Ok(Some("it has no safetensors header".to_owned()));
    }
    let header_json = serde_json::from_reader(BufReader::new(file.take(header)));
    let Ok(Value::Object(tensors)) = header_json else {
        return Ok(Some("its safetensors header is not JSON".to_owned()));
    };
    let end = |tensor: &Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let last = tensors.values().filter_map(end).max().unwrap_or(0);
    let expected = last.saturating_add(8 + header);
    Ok((expected != size).then(|| format!("it has {size} bytes, its safetensors header says {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_git_and_git_lfs() {
        // `printf 'hello\n' | git hash-object --stdin` and `sha256sum`.
        for tag in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let etag = Etag::parse(tag).unwrap();
            let mut hasher = Hasher::of(&etag, 6).unwrap();
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.check(&etag), Ok(()));
            assert!(Hasher::of(&etag, 6).unwrap().check(&etag).is_err());
        }
        assert!(Hasher::of(&Etag::parse("5e9a-x").unwrap(), 6).is_none());
    }

    #[test]
    fn incomplete_safetensors_and_json_are_detected() {
        let folder = tempfile::tempdir().unwrap();
        let header = br#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
        let whole = [&(header.len() as u64).to_le_bytes()[..], header, b"xy"].concat();
        let check = |name: &str, bytes: &[u8]| {
            let path = folder.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            check_form(&path, &FileName::parse(name).unwrap()).unwrap().is_ok()
        };
        assert!(check("a.safetensors", &whole));
        assert!(!check("a.safetensors", &whole[..whole.len() - 1]));
        assert!(!check("a.safetensors", &[&whole[..], b"z"].concat()));
        assert!(!check("a.safetensors", b"<html>no</html>") && !check("a.safetensors", b""));
        assert!(!check("a.safetensors", &[0xff; 32]));
        assert!(check("a.json", br#" {"a": [1]} "#) && check("a.json", b"[]") && check("a.txt", b"<html>"));
        for not_json in ["<html></html>", "", "{", "{} {}"] {
            assert!(!check("a.json", not_json.as_bytes()), "{not_json}");
        }
        assert!(!check("a.json", &b"[".repeat(1 << 20)), "deep nesting");
    }
}
