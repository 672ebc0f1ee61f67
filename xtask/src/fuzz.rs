//! `cargo xtask fuzz`: gives the readers of a user's files random bytes, with cargo-fuzz.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

/// The targets in `fuzz/fuzz_targets`.
const TARGETS: [&str; 8] =
    ["pairs", "config", "safetensors", "checkpoint", "gguf", "tokenizer", "vocabulary", "activations"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Duration of each target in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
    /// The only target to run [default: all].
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { seconds: 120, target: None }
    }
}

/// Refuses a machine without cargo-fuzz.
pub(crate) fn check_installed() -> anyhow::Result<()> {
    let output = cargo().args(["fuzz", "--version"]).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo-fuzz is not installed; run `cargo install cargo-fuzz`");
    Ok(())
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.seconds > 0, "--seconds must be above 0");
    check_installed()?;
    for target in TARGETS {
        if arguments.target.as_deref().is_none_or(|only| only == target) {
            fuzz(target, arguments.seconds)?;
        }
    }
    Ok(())
}

fn fuzz(target: &str, seconds: u32) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // libFuzzer adds what it finds to the first directory, so the kept inputs stay as they are.
    let found = root.join("fuzz/found").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let status = cargo()
        .args(["fuzz", "run", target])
        .args([&found, &root.join("fuzz/corpus").join(target)])
        .args(["--", &format!("-max_total_time={seconds}"), "-rss_limit_mb=2048", "-malloc_limit_mb=512"])
        .current_dir(&root)
        // A stable compiler has the sanitizer, but takes its flag only with this variable.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()
        .context("cannot run cargo fuzz")?;
    ensure!(status.success(), "the fuzz target {target} failed; its output is above");
    Ok(())
}

fn cargo() -> Command {
    Command::new(env!("CARGO"))
}
