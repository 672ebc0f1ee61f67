//! The commands of `rewire`, as a library.
//!
//! The binary `rewire` and the repository's `cargo xtask` both run a [`Command`] with [`start`].
//! Only this crate prints, parses flags and chooses a backend. To call an analysis from Rust, use
//! the crate `rewire`.
//!
//! ```
//! use clap::Parser;
//! use rewire_cli::{Arguments, Command};
//!
//! let arguments = Arguments::try_parse_from(["rewire", "sweep", "--pairs", "pairs.jsonl"])?;
//! assert!(matches!(arguments.command, Command::Sweep(_)));
//! # Ok::<(), clap::Error>(())
//! ```
#![forbid(unsafe_code)]

mod activations_file;
mod arguments;
mod bench;
mod circuit;
mod command;
mod compute;
mod correct;
mod cpu_time;
mod device;
mod edge_agreement;
mod finding;
mod grid;
mod headings;
mod identity;
mod in_words;
mod interrupt;
mod merge;
mod model;
mod models;
mod notices;
mod on_device;
pub mod output;
mod pairs;
mod pairs_file;
mod panics;
mod pass_key;
pub mod progress;
mod provenance;
mod publish;
mod reproduce_facts;
mod reproduce_ig;
mod reproduce_ioi;
mod reproduce_pythia;
mod session;
mod shards;
mod shell;
mod slurm;
mod start;
mod sweep;
mod system_memory;
mod threads;
mod verify;
mod weights;

pub use command::{Arguments, Command};
pub use interrupt::Interrupts;
pub use start::start;
