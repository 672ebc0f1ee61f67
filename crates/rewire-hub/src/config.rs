//! Configuration: cache, endpoint, token and limits, from the environment or set by hand.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Endpoint if `HF_ENDPOINT` is not set.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Sets whether requests are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Downloads files that are not cached.
    Online,
    /// Uses only the cache.
    Offline,
}

/// Sets whether downloads draw a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Draws nothing.
    Hidden,
    /// Draws a bar on standard error, if that is a terminal.
    Bar,
}

/// Receives one line for each retry, each damaged file and each wait for another process.
#[derive(Clone)]
pub struct Notice(Arc<dyn Fn(&str) + Send + Sync>);

impl Notice {
    /// Calls `receive` with each line.
    pub fn new(receive: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    pub(crate) fn say(&self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notice")
    }
}

/// Limits on the time, the space and the requests that a server may use.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// Longest time to find a server's address, and to connect to it.
    pub connect: Duration,
    /// Longest time from a request to the end of the answer's headers.
    pub response: Duration,
    /// Longest time without a byte of the body.
    pub idle: Duration,
    /// Period over which the rate of a download is measured.
    pub rate_period: Duration,
    /// Lowest rate over a period, in bytes a second.
    pub rate_floor: u64,
    /// Largest number of redirects of one request.
    pub redirects: usize,
    /// Largest number of retries of one file.
    pub retries: u32,
    /// Bytes of progress after which [`Limits::retries`] is counted from zero again.
    pub progress: u64,
    /// Wait before the first retry. The wait doubles with each further retry.
    pub backoff: Duration,
    /// Longest wait that a server may ask for.
    pub retry_after: Duration,
    /// Longest wait for another process that downloads the same file.
    pub lock: Duration,
    /// Largest `.json` file, in bytes.
    pub json_bytes: u64,
    /// Largest file of any other kind, in bytes.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            rate_period: Duration::from_secs(60),
            rate_floor: 1000,
            redirects: 10,
            retries: 3,
            progress: 1 << 20,
            backoff: Duration::from_millis(500),
            retry_after: Duration::from_secs(30),
            lock: Duration::from_secs(3600),
            json_bytes: 64 << 20,
            file_bytes: 512 << 30,
        }
    }
}

/// Cache, endpoint, token and limits of a [`HubClient`](crate::HubClient).
#[derive(Clone)]
#[non_exhaustive]
pub struct HubConfig {
    /// The cache directory, which holds one folder for each repository.
    pub cache: PathBuf,
    /// The hub's address.
    pub endpoint: String,
    /// The token for gated repositories. Only the endpoint sees it.
    pub token: Option<String>,
    /// Sets whether requests are allowed.
    pub access: Access,
    /// Sets whether downloads draw a progress bar.
    pub progress: Progress,
    /// Receives one line for each retry, each damaged file and each wait for another process.
    pub notice: Notice,
    /// Limits on the time, the space and the requests that a server may use.
    pub limits: Limits,
}

impl HubConfig {
    /// Uses this cache directory, the default endpoint and no token. Ignores the environment.
    #[must_use]
    pub fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            token: None,
            access: Access::Online,
            progress: Progress::Hidden,
            notice: Notice::new(|_| ()),
            limits: Limits::default(),
        }
    }

    /// Reads the process's environment as [`HubConfig::from_lookup`] does.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads the variables of Python's `huggingface_hub`; an empty variable counts as unset.
    ///
    /// - cache: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, or `hub` in the home folder;
    /// - home folder: `HF_HOME`, or `huggingface` in `XDG_CACHE_HOME` (default `~/.cache`);
    /// - token: `HF_TOKEN`, or the file `HF_TOKEN_PATH` (default `token` in the home folder);
    /// - `HF_ENDPOINT`, and `HF_HUB_OFFLINE` (1, true, yes, on).
    #[must_use]
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let user = get("HOME").or_else(|| get("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| get(name).map(|value| expanded(&value, user.as_deref()));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME");
            caches.unwrap_or_else(|| user.clone().unwrap_or_default().join(".cache")).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = get("HF_TOKEN").or_else(|| read_token(&token_file));
        let on = |value: String| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on");
        let offline = get("HF_HUB_OFFLINE").is_some_and(on);
        Self {
            endpoint: get("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            access: if offline { Access::Offline } else { Access::Online },
            ..Self::new(cache.unwrap_or_else(|| home.join("hub")))
        }
    }
}

/// Omits the token.
impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("access", &self.access)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Replaces a leading `~` by the user's home folder.
fn expanded(value: &str, user: Option<&Path>) -> PathBuf {
    match (value.strip_prefix('~'), user) {
        (Some(rest), Some(user)) if rest.is_empty() || rest.starts_with(['/', '\\']) => {
            user.join(rest.trim_start_matches(['/', '\\']))
        }
        _ => PathBuf::from(value),
    }
}

/// Returns the content of a token file. Reads at most 4096 bytes, because a token is short.
fn read_token(path: &Path) -> Option<String> {
    let mut token = String::new();
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    std::fs::File::open(path).ok()?.take(4096).read_to_string(&mut token).ok()?;
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        HubConfig::from_lookup(value)
    }

    #[test]
    fn the_cache_path_follows_huggingface_hub() {
        let cache = |variables: &[(&str, &str)]| config(variables).cache;
        let user = ("HOME", "/u");
        assert_eq!(cache(&[user]), Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(cache(&[user, ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[user, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/h")]), Path::new("/u/h/hub"));
        assert_eq!(cache(&[user, ("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
        assert_eq!(cache(&[user, ("HF_HOME", "")]), Path::new("/u/.cache/huggingface/hub"));
    }

    #[test]
    fn the_token_is_read_from_the_variable_or_a_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(home.path().join("other"), "hf_other").unwrap();
        let folder = home.path().to_str().unwrap();
        let other = home.path().join("other");
        let other = other.to_str().unwrap();
        let token = |variables: &[(&str, &str)]| config(variables).token;
        assert_eq!(token(&[("HF_HOME", folder)]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_HOME", folder), ("HF_TOKEN_PATH", other)]).as_deref(), Some("hf_other"));
        assert_eq!(token(&[("HF_HOME", folder), ("HF_TOKEN", "hf_variable ")]).as_deref(), Some("hf_variable"));
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
        let secret = config(&[("HF_TOKEN", "hf_secret")]);
        assert!(!format!("{secret:?}").contains("hf_secret"));
    }

    #[test]
    fn offline_mode_has_four_spellings() {
        for value in ["1", "true", "YES", "On"] {
            assert_eq!(config(&[("HF_HUB_OFFLINE", value)]).access, Access::Offline, "{value}");
        }
        for value in ["0", "false", "", "no"] {
            assert_eq!(config(&[("HF_HUB_OFFLINE", value)]).access, Access::Online, "{value}");
        }
        assert_eq!(config(&[("HF_ENDPOINT", "http://mirror")]).endpoint, "http://mirror");
        assert_eq!(config(&[]).endpoint, DEFAULT_ENDPOINT);
    }
}
