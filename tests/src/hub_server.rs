//! A small server that speaks as much of the hub's protocol as downloading a model takes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
    /// Bytes after which the next download of a body longer than that is broken off; once.
    break_after: Mutex<Option<usize>>,
    requests: AtomicUsize,
    /// First byte of every download that was asked for, with the file's name.
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
            break_after: Mutex::new(None),
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

    /// Its address, as `HF_ENDPOINT` has it.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Breaks off the next download that is longer than `bytes`.
    pub fn break_next_download_after(&self, bytes: usize) {
        *self.state.break_after.lock().expect("no panic while locked") = Some(bytes);
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// From which byte on a file was asked for, download by download.
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
            let prefix = format!("{}/resolve/main/", self.repository);
            match path.strip_prefix(&prefix).and_then(|file| Some((file, self.files.get(file)?))) {
                None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
                Some((name, file)) => {
                    if !self.send(&mut stream, name, file, range.as_deref())? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends the bytes asked for; false if it broke off.
    fn send(&self, stream: &mut TcpStream, name: &str, file: &[u8], range: Option<&str>) -> std::io::Result<bool> {
        let (first, last) = range.and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
        let first: usize = first.parse().unwrap_or(0);
        let last = last.parse().unwrap_or(file.len() - 1);
        let body = &file[first..=last];
        if !(first == 0 && last == 0) {
            self.downloads.lock().expect("no panic while locked").push((name.to_owned(), first));
        }
        // The tag names the content: cached files are kept under it.
        let tag =
            file.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\
             ETag: \"{tag:016x}\"\r\nX-Repo-Commit: 0123456789abcdef0123456789abcdef01234567\r\n\r\n",
            body.len(),
            file.len(),
        )?;
        let mut break_after = self.break_after.lock().expect("no panic while locked");
        if let Some(bytes) = break_after.filter(|&bytes| body.len() > bytes) {
            *break_after = None;
            stream.write_all(&body[..bytes])?;
            stream.shutdown(std::net::Shutdown::Both)?;
            return Ok(false);
        }
        drop(break_after);
        stream.write_all(body)?;
        Ok(true)
    }
}
