//! A hub on loopback with one [`Behavior`], and a cache for the test to use with it.
// Each test uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod behavior;
mod honest;

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use behavior::Behavior;
pub use honest::{COMMIT, CONFIG, OTHER_COMMIT, REPOSITORY, file, git_tag, lfs_tag, weights};

use rewire_hub::{HubClient, HubConfig, HubError, Notice};

/// The token, which no other host may see.
pub const TOKEN: &str = "hf_secret";

/// One request, as received by a server.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// A server that runs until the test ends.
#[derive(Debug, Clone)]
pub struct HostileServer {
    pub endpoint: String,
    /// Another host that the server may redirect clients to.
    pub stranger: String,
    requests: Arc<Mutex<Vec<Request>>>,
    of_stranger: Arc<Mutex<Vec<Request>>>,
}

impl HostileServer {
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns the requests that reached the other host.
    pub fn requests_of_stranger(&self) -> Vec<Request> {
        self.of_stranger.lock().unwrap().clone()
    }
}

/// Starts a server with this behavior, and the other host.
pub fn serve(behavior: Behavior) -> HostileServer {
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let strangers = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let server = HostileServer {
        endpoint: address(&ours),
        stranger: address(&strangers),
        requests: Arc::default(),
        of_stranger: Arc::default(),
    };
    let (hub, elsewhere) = (server.clone(), server.clone());
    listen(ours, Arc::clone(&server.requests), move |request, earlier, stream| {
        behavior.answer(&hub, request, earlier, stream)
    });
    listen(strangers, Arc::clone(&server.of_stranger), move |request, _, stream| {
        behavior.answer_as_stranger(&elsewhere, request, stream)
    });
    server
}

/// Answers the one request of each connection; `answer` also gets the number of earlier requests.
fn listen(
    listener: TcpListener,
    log: Arc<Mutex<Vec<Request>>>,
    answer: impl Fn(&Request, usize, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            std::thread::spawn(move || {
                let Some(request) = read_request(&stream) else { return };
                let earlier = {
                    let mut log = log.lock().unwrap();
                    log.push(request.clone());
                    log.len() - 1
                };
                let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
                let _ = answer(&request, earlier, &mut stream);
            });
        }
    });
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream.take(1 << 16)).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        match line.split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    Some(Request { method, path, headers })
}

/// A cache in a folder with a sentinel beside it.
pub struct Sandbox {
    folder: tempfile::TempDir,
    pub notices: Arc<Mutex<Vec<String>>>,
}

impl Default for Sandbox {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("outer/inner/cache")).unwrap();
        std::fs::write(folder.path().join("outer/sentinel"), "untouched").unwrap();
        Self { folder, notices: Arc::default() }
    }
}

impl Sandbox {
    /// Returns the folder around the cache.
    pub fn outer(&self) -> PathBuf {
        self.folder.path().join("outer")
    }

    pub fn cache(&self) -> PathBuf {
        self.outer().join("inner/cache")
    }

    /// Returns a path in the repository's folder in the cache.
    pub fn entry(&self, path: &str) -> PathBuf {
        self.cache().join("models--owner--model").join(path)
    }

    /// Puts a file into the repository's folder in the cache.
    pub fn plant(&self, path: &str, content: &[u8]) -> PathBuf {
        let path = self.entry(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Puts a file into the cache as `huggingface_hub` does.
    pub fn plant_file(&self, name: &str, tag: &str, content: &[u8]) -> PathBuf {
        self.plant("refs/main", COMMIT.as_bytes());
        let blob = self.plant(&format!("blobs/{tag}"), content);
        self.plant_link(name, &format!("../../blobs/{tag}"));
        blob
    }

    pub fn plant_link(&self, name: &str, target: &str) {
        let snapshot = self.entry(&format!("snapshots/{COMMIT}/{name}"));
        std::fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, snapshot).unwrap();
    }

    /// Returns a configuration with short limits, the token, and recorded notices.
    pub fn config(&self, endpoint: &str) -> HubConfig {
        let mut config = HubConfig::new(self.cache());
        endpoint.clone_into(&mut config.endpoint);
        config.token = Some(TOKEN.to_owned());
        let notices = Arc::clone(&self.notices);
        config.notice = Notice::new(move |line| notices.lock().unwrap().push(line.to_owned()));
        let limits = &mut config.limits;
        limits.connect = Duration::from_secs(2);
        limits.response = Duration::from_millis(600);
        limits.idle = Duration::from_millis(400);
        limits.rate_period = Duration::from_millis(500);
        limits.retries = 2;
        limits.backoff = Duration::from_millis(10);
        limits.retry_after = Duration::from_secs(2);
        limits.lock = Duration::from_secs(5);
        config
    }

    /// Fetches one file of the main revision; a fetch of more than 20 s fails the test.
    pub fn get(&self, endpoint: &str, name: &str) -> Result<PathBuf, HubError> {
        get(self.config(endpoint), "main", name)
    }

    /// Returns everything outside the cache: paths, and contents of files.
    pub fn outside(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let inner = self.outer().join("inner");
        let mut found = listing(self.folder.path(), &inner.join("cache"));
        found.sort();
        found
    }

    /// Returns the files that count as cached.
    pub fn counted(&self) -> Vec<PathBuf> {
        let files = listing(&self.entry("snapshots"), Path::new(""));
        files.into_iter().map(|(path, _)| path).filter(|path| !path.is_dir()).collect()
    }
}

/// Fetches one file in a separate thread, so that a hang becomes a failure.
pub fn get(config: HubConfig, revision: &str, name: &str) -> Result<PathBuf, HubError> {
    let (done, result) = std::sync::mpsc::channel();
    let (revision, name) = (revision.to_owned(), name.to_owned());
    let thread = std::thread::spawn(move || {
        let client = HubClient::new(config);
        let _ = done.send(client.snapshot(REPOSITORY, &revision).get(&name));
    });
    match result.recv_timeout(Duration::from_secs(20)) {
        Ok(result) => result,
        Err(_) if thread.is_finished() => panic!("the client panicked"),
        Err(_) => panic!("the client hangs"),
    }
}

fn listing(folder: &Path, except: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path != except) {
        let is_folder = path.symlink_metadata().unwrap().is_dir();
        if is_folder {
            found.extend(listing(&path, except));
        }
        let content = if is_folder { Vec::new() } else { std::fs::read(&path).unwrap_or_default() };
        found.push((path, content));
    }
    found
}
