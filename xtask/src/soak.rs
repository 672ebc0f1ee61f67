//! `cargo xtask soak`: stresses this program for an hour, and counts the failures.

use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Duration in minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Seed of all random choices.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (minutes, seed) = (arguments.minutes, arguments.seed);
    ensure!(minutes > 0.0 && minutes.is_finite(), "--minutes must be above 0");
    let program = std::env::current_exe().context("cannot find the file of this program")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "rewire-abuse", "--"])
        .args(["--minutes", &minutes.to_string(), "--seed", &seed.to_string(), "--program"])
        .arg(program)
        .status()
        .context("cannot run cargo, which builds the trials")?;
    ensure!(status.success(), "trials failed; they are listed above");
    Ok(())
}

impl Default for Arguments {
    fn default() -> Self {
        Self { minutes: 60.0, seed: 0 }
    }
}
