//! `cargo xtask ci`: runs the checks of CI, and with `--long` the slow tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

use crate::{fuzz, soak};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Then also run the commands on ndarray, install the command, and run the tests that take
    /// minutes, the CUDA backend on a stand-in for the driver, each fuzz target for two minutes,
    /// and `soak` for an hour.
    #[arg(long)]
    long: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // A missing tool is better known before the long tests than after them.
    if arguments.long {
        fuzz::check_installed()?;
    }
    script("run")?;
    if !arguments.long {
        return Ok(());
    }
    script("long")?;
    script("stand-in")?;
    let status = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--", "--ignored"])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "tests failed; their output is above");
    fuzz::run(&fuzz::Arguments::default())?;
    soak::run(&soak::Arguments::default())
}

/// Runs a script of the folder `.ci`.
fn script(name: &str) -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci").join(name);
    let status = Command::new(&script).status().with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(status.success(), "{} failed; its output is above", script.display());
    Ok(())
}
