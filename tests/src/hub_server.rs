//! A small server with the part of the hub's protocol that a model download needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// Files of one repository, `owner/name`, served on a loopback port until the test ends.
#[derive(Debug)]
pub struct HubServer {
    endpoint: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    repository: String,
    files: BTreeMap<String, Vec<u8>>,
    /// The number of downloads to interrupt, and the number of bytes after which a longer body is
    /// interrupted.
    broken: Mutex<(usize, usize)>,
    requests: AtomicUsize,
    /// The file name and the first byte of every download that was requested.
    downloads: Mutex<Vec<(String, usize)>>,
}

impl HubServer {
    /// Serves `files` as the main revision of `repository`.
    pub fn start(repository: &str, files: BTreeMap<String, Vec<u8>>) -> HubServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound port"));
        let state = Arc::new(State {
            repository: repository.to_owned(),
            files,
            broken: Mutex::new((0, 0)),
            requests: AtomicUsize::new(0),
            downloads: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || drop(state.answer(stream)));
            }
        });
        HubServer { endpoint, state }
    }

    /// Returns its address, in the form of `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Interrupts the next `downloads` bodies that are longer than `bytes`.
    pub fn break_downloads_after(&self, downloads: usize, bytes: usize) {
        *self.state.broken.lock().expect("no panic while locked") = (downloads, bytes);
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Returns the first requested byte of each download of a file.
    pub fn downloads_of(&self, file: &str) -> Vec<usize> {
        let downloads = self.state.downloads.lock().expect("no panic while locked");
        downloads.iter().filter(|(name, _)| name == file).map(|(_, first)| *first).collect()
    }
}

impl State {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut request = String::new();
            if reader.read_line(&mut request)? == 0 {
                return Ok(());
            }
            let mut range = None;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                if header.trim().is_empty() {
                    break;
                }
                if let Some(value) = header.to_lowercase().strip_prefix("range: bytes=") {
                    range = Some(value.trim().to_owned());
                }
            }
            self.requests.fetch_add(1, Ordering::SeqCst);
            let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            let file = ["main", COMMIT].iter().find_map(|revision| {
                let file = path.strip_prefix(&format!("{}/resolve/{revision}/", self.repository))?;
                Some((file, self.files.get(file)?))
            });
            match file {
                None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
                Some((_, file)) if request.starts_with("HEAD ") => {
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{}", file.len(), described(file))?;
                }
                Some((name, file)) => {
                    if !self.send(&mut stream, name, file, range.as_deref())? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends the requested bytes; returns false if it interrupted the download.
    fn send(&self, stream: &mut TcpStream, name: &str, file: &[u8], range: Option<&str>) -> std::io::Result<bool> {
        let first: usize = range.and_then(|r| r.strip_suffix('-')?.parse().ok()).unwrap_or(0);
        let body = &file[first..];
        self.downloads.lock().expect("no panic while locked").push((name.to_owned(), first));
        match range {
            None => write!(stream, "HTTP/1.1 200 OK\r\n")?,
            Some(_) => {
                let (last, size) = (file.len() - 1, file.len());
                write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}\r\n")?;
            }
        }
        write!(stream, "Content-Length: {}\r\n{}", body.len(), described(file))?;
        let mut broken = self.broken.lock().expect("no panic while locked");
        let (downloads, bytes) = *broken;
        if downloads > 0 && body.len() > bytes {
            *broken = (downloads - 1, bytes);
            stream.write_all(&body[..bytes])?;
            stream.shutdown(std::net::Shutdown::Both)?;
            return Ok(false);
        }
        drop(broken);
        stream.write_all(body)?;
        Ok(true)
    }
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Returns the headers with a file's commit and, as a hash, its content.
fn described(file: &[u8]) -> String {
    let hash: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("ETag: \"{hash}\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n")
}
