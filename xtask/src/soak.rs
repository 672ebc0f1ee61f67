//! `cargo xtask soak`: abuses this program for an hour, and counts what holds.

use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Minutes to go on for.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (minutes, seed) = (arguments.minutes, arguments.seed);
    ensure!(minutes > 0.0 && minutes.is_finite(), "--minutes must be above 0");
    let program = std::env::current_exe().context("this program's own file")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "rewire-abuse", "--"])
        .args(["--minutes", &minutes.to_string(), "--seed", &seed.to_string(), "--program"])
        .arg(program)
        .status()
        .context("cannot start cargo, which builds the trials")?;
    ensure!(status.success(), "trials failed; they are listed above");
    Ok(())
}

impl Default for Arguments {
    fn default() -> Self {
        Self { minutes: 60.0, seed: 0 }
    }
}
