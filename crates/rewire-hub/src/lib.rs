//! Files from the Hugging Face hub, in the cache that Python's `huggingface_hub` uses.
//!
//! Use this crate to get a model's files by name, with blocking calls and without an async runtime.
//! It only downloads from model repositories; to upload, list or search, use another client.
//!
//! - **Checked.** A file counts once its size and its hash are right. Cached files are checked
//!   again at each use: small ones by hash, large ones by format.
//! - **Bounded.** Redirects, waits, retries, headers and sizes have limits ([`Limits`]).
//! - **Contained.** Names from users and servers are checked, and nothing outside the cache is read
//!   or written.
//! - **Private.** The token goes to the endpoint's scheme, host and port, and nowhere else.
//!
//! ```
//! use rewire_hub::{Access, HubClient, HubConfig};
//!
//! let mut config = HubConfig::from_env();
//! config.access = Access::Offline;
//! # config.cache = "/nonexistent".into();
//! let client = HubClient::new(config);
//! match client.snapshot("openai-community/gpt2", "main").get("config.json") {
//!     Ok(path) => println!("{}", path.display()),
//!     Err(error) => assert!(error.is_absent(), "{error}"),
//! }
//! ```
#![forbid(unsafe_code)]

mod cache;
mod client;
mod config;
mod content;
mod download;
mod error;
mod http;
mod lock;
mod metadata;
mod names;
mod packaged;
mod partial;
mod progress;
mod retry;
mod shown;

pub use client::{HubClient, Snapshot};
pub use config::{Access, DEFAULT_ENDPOINT, HubConfig, Limits, Notice, Progress};
pub use error::{HubError, HubErrorKind};
pub use names::{NameError, RepoId, Revision};
pub use packaged::{PackagedModel, SMOLLM2};
pub use shown::shown;
