//! Reads a user's files safely: limits their size, finds repeated JSON keys, quotes outside text in
//! errors, and suggests the name that was meant.
//!
//! Use this crate for every file, line or value that comes from outside. A damaged or hostile file
//! must give one short error. It must not fill the memory, hide half of its contents, or write
//! control characters to the terminal.
//!
//! ```
//! use rewire_input::{cut, quoted, repeated_key};
//!
//! assert_eq!(quoted(" Mary\n"), r#"" Mary\n""#);
//! assert_eq!(cut(&"x".repeat(1000)).len(), "x".len() * 200 + " .. (1000 characters)".len());
//! assert_eq!(repeated_key(br#"{"n_head": 4, "n_head": 8}"#).as_deref(), Some("n_head"));
//! ```
#![forbid(unsafe_code)]

mod json;
mod quote;
mod read;
mod suggest;

pub use json::repeated_key;
pub use quote::{MOST_QUOTED, cut, quoted};
pub use read::{Line, check_regular, read_line, read_regular};
pub use suggest::{did_you_mean, most_similar};
