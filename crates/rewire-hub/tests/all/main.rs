//! Fetching from servers, honest and hostile.
#![cfg(unix)]

mod cache;
mod download;
mod hostile;
mod server;
