//! The repository on all test servers, and the answers of a hub that follows the protocol.

use std::io::Write;
use std::net::TcpStream;

use sha1::Digest;

use super::Request;

pub const REPOSITORY: &str = "owner/model";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
pub const CONFIG: &[u8] = br#"{"model_type": "gpt2", "n_layer": 2}"#;

/// Returns a small safetensors file.
pub fn weights() -> Vec<u8> {
    let header = br#"{"a":{"dtype":"U8","shape":[20000],"data_offsets":[0,20000]}}"#;
    let data: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
    [&(header.len() as u64).to_le_bytes()[..], header, &data].concat()
}

/// Returns the tag of a file in the repository itself.
pub fn git_tag(content: &[u8]) -> String {
    let blob = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    hexadecimal(&sha1::Sha1::digest(blob))
}

/// Returns the tag of a file in large-file storage.
pub fn lfs_tag(content: &[u8]) -> String {
    hexadecimal(&sha2::Sha256::digest(content))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a file's content and tag.
pub fn file(name: &str) -> Option<(Vec<u8>, String)> {
    match name {
        "config.json" => Some((CONFIG.to_vec(), git_tag(CONFIG))),
        "nested/folder/config.json" => Some((CONFIG.to_vec(), git_tag(CONFIG))),
        "model.safetensors" => Some((weights(), lfs_tag(&weights()))),
        _ => None,
    }
}

/// An answer that can be changed before it is sent.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn new(status: &str) -> Self {
        Self { status: status.to_owned(), headers: Vec::new(), body: Vec::new() }.with("Content-Length", "0")
    }

    /// Sets a header.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self
    }

    /// Changes the content and its length.
    pub(super) fn containing(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.with("Content-Length", &body.len().to_string())
    }

    pub(super) fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        (head + "\r\n").into_bytes()
    }

    pub(super) fn send(&self, request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(&self.head())?;
        if request.method != "HEAD" {
            stream.write_all(&self.body)?;
        }
        Ok(())
    }
}

/// Returns the file that a request names, at any revision.
pub(super) fn name_of(request: &Request) -> &str {
    let path = &request.path;
    let path = path.strip_prefix("/owner/model/resolve/").or_else(|| path.strip_prefix("/renamed/resolve/"));
    let path = path.unwrap_or_default();
    path.split_once('/').map_or("", |(_, name)| name)
}

/// Returns the answer of a hub that keeps all files in the repository itself.
pub(super) fn reply(request: &Request) -> Reply {
    let Some((content, tag)) = file(name_of(request)) else {
        return Reply::new("404 Not Found").with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", COMMIT);
    };
    let first = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let first: usize = first.and_then(|first| first.parse().ok()).unwrap_or(0);
    let described = |status: &str| {
        let quoted = format!("\"{tag}\"");
        Reply::new(status).with("ETag", &quoted).with("X-Repo-Commit", COMMIT).with("Accept-Ranges", "bytes")
    };
    match first {
        0 => described("200 OK").containing(&content),
        _ if first >= content.len() => Reply::new("416 Range Not Satisfiable"),
        _ => described("206 Partial Content")
            .containing(&content[first..])
            .with("Content-Range", &format!("bytes {first}-{}/{}", content.len() - 1, content.len())),
    }
}
