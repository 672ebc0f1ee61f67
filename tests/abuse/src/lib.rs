//! Abuse tests of rewire's commands: kills at random moments, two runs in one directory, damaged
//! records, full disks, faults of a cluster and hostile input.
//!
//! Every trial starts the real program as a process, disturbs it, and checks three things: no
//! number is wrong, no file of the user is lost and nothing is written outside, and the same
//! command finishes the work. `cargo xtask soak` runs trials for an hour; `tests/short.rs` runs
//! some of each kind.
#![forbid(unsafe_code)]

mod cluster;
mod commands;
mod damage;
mod disks;
mod faults;
mod kills;
mod program;
mod races;
mod results;
#[path = "../../../crates/rewire-hub/tests/all/server/mod.rs"]
mod server;
mod servers;
mod trials;

pub use program::Program;
pub use trials::{Counts, Kind, Trials};
