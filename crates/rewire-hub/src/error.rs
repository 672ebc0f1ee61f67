//! Errors of fetching a file.

use std::path::PathBuf;
use std::time::Duration;

use crate::names::NameError;

/// An error that names the file, its repository and its revision.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch {file} of {repository} (revision {revision}): {kind}")]
#[non_exhaustive]
pub struct HubError {
    /// The repository, cut and escaped for display.
    pub repository: String,
    /// The revision, cut and escaped for display.
    pub revision: String,
    /// The file, cut and escaped for display.
    pub file: String,
    /// The reason.
    pub kind: Box<HubErrorKind>,
}

impl HubError {
    /// Returns whether the repository has no such file, or, offline, the cache has none.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(*self.kind, HubErrorKind::NotFound { .. } | HubErrorKind::NotCached { .. })
    }
}

/// The reason of a [`HubError`]. Values from servers are cut to 200 characters, and control
/// characters are escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubErrorKind {
    /// A name from the user or the server has a form that could lead out of the cache.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The endpoint is not the address of a hub.
    #[error("the endpoint `{endpoint}` {reason}; set HF_ENDPOINT to an address such as https://huggingface.co")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// The fault.
        reason: String,
    },
    /// The token cannot be part of a header.
    #[error("the token holds spaces or control characters; correct HF_TOKEN or the token file")]
    Token,
    /// The repository has no such revision or file.
    #[error("not found (HTTP 404): do the repository, the revision and the file exist?{hint}")]
    NotFound {
        /// The cached file that the answer depends on, or nothing.
        hint: String,
    },
    /// The hub requires a token, or a different one.
    #[error(
        "access is denied (HTTP {status}); a gated model needs HF_TOKEN, and some hubs give this status for unknown names"
    )]
    Denied {
        /// The HTTP status.
        status: u16,
    },
    /// The file may come from the cache only, and the cache lacks it.
    #[error("it is not in the cache {cache}, and HF_HUB_OFFLINE is set; unset it to download the file")]
    NotCached {
        /// The cache directory.
        cache: PathBuf,
    },
    /// A cached file fails its checks.
    #[error("{path} is damaged: {reason}; delete it, then fetch the model again without HF_HUB_OFFLINE")]
    Damaged {
        /// The file to delete.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// A folder or lock in the cache is of another kind, such as a symbolic link.
    #[error("{path} is {found}; move it away, because nothing outside the cache is read or written")]
    CacheEntry {
        /// The entry.
        path: PathBuf,
        /// The kind of entry that was found.
        found: &'static str,
    },
    /// A file in the cache could not be read or written.
    #[error("cannot use {path}: {reason}; check the cache directory's permissions and free space, or set HF_HUB_CACHE")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason. It is part of the message, and not a source, because the
        /// message continues after it.
        reason: std::io::Error,
    },
    /// Another process holds the file's lock for too long.
    #[error("another process has held {path} for {} s; end that process or wait for it", .waited.as_secs())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// The time waited.
        waited: Duration,
    },
    /// The server answers with an error status.
    #[error("{host} answered HTTP {status}; try again later, or check HF_ENDPOINT")]
    Status {
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The wait that the server asks for.
        retry_after: Option<Duration>,
    },
    /// The server asks for a longer wait than [`Limits::retry_after`](crate::Limits::retry_after).
    #[error("{host} answered HTTP {status} and asks to wait {} s; try again then, with HF_TOKEN if it is not set", .wait.as_secs())]
    RateLimited {
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The wait that the server asks for.
        wait: Duration,
    },
    /// A redirect that is not allowed.
    #[error("{host} redirects {reason}; check HF_ENDPOINT and the network's proxy")]
    Redirect {
        /// The server.
        host: String,
        /// The fault.
        reason: String,
    },
    /// An answer breaks HTTP or the hub's protocol.
    #[error("the answer from {host} {reason}; check HF_ENDPOINT and the network's proxy")]
    Answer {
        /// The server.
        host: String,
        /// The fault.
        reason: String,
    },
    /// The file is larger than [`Limits`](crate::Limits) allow.
    #[error(
        "the hub says that it has {size} bytes, more than the {limit} bytes allowed for such a file; check the repository"
    )]
    TooLarge {
        /// The size that the hub gives.
        size: u64,
        /// The largest allowed size.
        limit: u64,
    },
    /// The downloaded content fails its checks.
    #[error("the download from {host} is not the file: {reason}; try again, and check the network's proxy")]
    Content {
        /// The endpoint.
        host: String,
        /// The fault.
        reason: String,
    },
    /// The body ended before the file did.
    #[error("the download from {host} ended after {received} of {size} bytes; fetch again to continue it")]
    Ended {
        /// The server.
        host: String,
        /// The bytes that are kept.
        received: u64,
        /// The file's size.
        size: u64,
    },
    /// The server sends less than [`Limits::rate_floor`](crate::Limits::rate_floor).
    #[error("{host} sends less than {floor} bytes a second; fetch again later to continue the download")]
    Slow {
        /// The server.
        host: String,
        /// The lowest accepted rate in bytes a second.
        floor: u64,
    },
    /// A connection could not be made, or failed.
    #[error(
        "the connection to {host} failed: {reason}; check the network, or set HF_HUB_OFFLINE=1 to use the cache alone"
    )]
    Network {
        /// The server.
        host: String,
        /// The fault.
        reason: String,
    },
}

impl HubErrorKind {
    /// Returns whether another attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Ended { .. } | Self::Network { .. } => true,
            _ => false,
        }
    }

    /// Returns the message without the advice after the last semicolon.
    pub(crate) fn cause(&self) -> String {
        let whole = self.to_string();
        whole.rsplit_once("; ").map_or(whole.clone(), |(cause, _)| cause.to_owned())
    }

    /// Returns a conversion from an I/O error on this path.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |reason| Self::Io { path, reason }
    }
}
