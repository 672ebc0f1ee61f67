//! Output directories that survive kills, full disks and a second command.
//!
//! [`OutputDirectory::take`] locks a directory for one run. [`Record`] keeps the finished passes of
//! that run, so that the same command resumes after a kill. [`OutputDirectory::publish`] replaces
//! all results of the directory together. [`Shard`] and [`Shards`] divide a run among processes
//! that share a directory and nothing else. docs/reliability.md lists the guarantees and their
//! tests.
//!
//! ```
//! use rewire_store::{Key, OutputDirectory, Record, Waiting};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let path = temporary.path().join("out");
//! let directory = OutputDirectory::take(&path, &["sums.txt"], "my-command", Waiting::Refuse)?;
//! let identity = serde_json::json!({ "model": "toy", "metric": "logit-diff" });
//! let record = Record::open(&directory, &identity)?;
//! let key = Key { portion: 0, number: 0, plan: 7 };
//! let numbers = match record.load(key)? {
//!     Some(kept) => kept,
//!     None => {
//!         record.store(key, &[0.25, -1.5])?;
//!         vec![0.25, -1.5]
//!     }
//! };
//! let sum: f32 = numbers.iter().sum();
//! directory.publish(&[("sums.txt", sum.to_string().into_bytes())], &[])?;
//! record.remove()?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod checksum;
mod directory;
mod error;
mod line;
mod lock;
mod record;
mod results;
mod shard;
mod shard_file;
mod shards;

pub use checksum::sha256;
pub use directory::{OutputDirectory, Traces, Waiting};
pub use error::StoreError;
pub use line::Key;
pub use record::{RECORD, Record};
pub use results::INCOMPLETE;
pub use shard::{OpenedShard, OtherShards, Shard};
pub use shard_file::{SHARDS, ShardHeader};
pub use shards::{MissingShard, Shards};
