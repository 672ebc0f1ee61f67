//! `cargo xtask fixtures`: regenerates the reference results in tests/fixtures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

/// The scripts in order. Later scripts read the output of earlier scripts.
const SCRIPTS: [&str; 6] = ["generate.py", "integrals.py", "metrics.py", "circuits.py", "edges.py", "config_fields.py"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Python with the packages of tests/fixtures/requirements.txt.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    for script in SCRIPTS {
        let status = Command::new(&arguments.python)
            .arg(script)
            .current_dir(&directory)
            .status()
            .with_context(|| format!("cannot start {}", arguments.python.display()))?;
        ensure!(status.success(), "{script} failed; its output is above");
    }
    Ok(())
}
