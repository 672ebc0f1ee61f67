//! Fetches from honest and hostile servers.
#![cfg(unix)]

mod cache;
mod download;
mod hostile;
mod server;
