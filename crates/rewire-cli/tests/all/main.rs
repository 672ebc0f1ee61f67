//! Runs the commands as programs.

mod circuits;
mod commands;
mod damaged_files;
mod formats;
mod guide;
mod numbers;
mod outputs;
mod refusals;
#[allow(missing_docs, unreachable_pub)]
mod shared;
mod sweep_parity;
mod tokens;
