//! Runs the commands as programs.

mod circuits;
mod commands;
mod damaged_files;
mod formats;
mod gpt2_formats;
mod guide;
mod metrics;
mod model_directories;
mod notation;
mod numbers;
mod outputs;
mod refusals;
mod reports;
mod results;
#[allow(missing_docs, unreachable_pub)]
mod shared;
mod sweep_parity;
mod tokens;
