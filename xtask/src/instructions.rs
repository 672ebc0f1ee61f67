//! `cargo xtask instructions`: counts the processor instructions of three small sweeps with
//! callgrind, which noise cannot change, and compares them with the recorded counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;

/// Name and options of each sweep. All are on the embedded toy model and the guide's pairs.
const WORKS: [(&str, &[&str]); 3] = [
    ("heads", &["--nodes", "head_z,head_q,head_k,head_v"]),
    ("attribution", &["--method", "attribution-patching", "--nodes", "head_z,head_q,head_k,head_v,mlp_out,resid_pre"]),
    ("edges", &["--method", "attribution-patching", "--nodes", "edges"]),
];
/// Largest change of a count, as a share of the recorded count.
const TOLERANCE: f64 = 0.05;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Record the counts instead of comparing them.
    #[arg(long)]
    record: bool,
    /// The program to count.
    #[arg(long, value_name = "FILE", default_value = "target/debug/rewire")]
    program: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = root.join("tests/instructions.json");
    let mut counts = BTreeMap::new();
    for (name, options) in WORKS {
        counts.insert(name.to_owned(), count(&root, &arguments.program, options)?);
    }
    if arguments.record {
        let text = serde_json::to_string_pretty(&counts)? + "\n";
        return std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()));
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let recorded: BTreeMap<String, u64> = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let mut changed = Vec::new();
    for (name, now) in &counts {
        let before = *recorded.get(name).with_context(|| format!("{} has no `{name}`", file.display()))?;
        let change = *now as f64 / before as f64 - 1.0;
        println!("{name}: {before} instructions recorded, {now} now ({:+.1}%)", 100.0 * change);
        if change.abs() > TOLERANCE {
            changed.push(name.as_str());
        }
    }
    ensure!(
        changed.is_empty(),
        "the instructions of {} changed by more than {:.0}%; if this is meant, record them: cargo xtask instructions --record",
        changed.join(", "),
        100.0 * TOLERANCE
    );
    Ok(())
}

/// Returns the number of instructions of a sweep on one thread.
fn count(root: &Path, program: &Path, options: &[&str]) -> anyhow::Result<u64> {
    let directory = tempfile::tempdir()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(root.join(program))
        .args(["sweep", "--model", "toy-gpt2", "--pairs"])
        .arg(root.join("docs/guide/pairs.jsonl"))
        .arg("--out")
        .arg(directory.path().join("out"))
        .args(options)
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .context("cannot run valgrind; install it (on Debian: apt-get install valgrind)")?;
    let printed = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("`rewire sweep {}` failed under valgrind:\n{printed}", options.join(" "));
    }
    let collected = printed.lines().find_map(|line| line.split_once("Collected : "));
    let (_, number) = collected.with_context(|| format!("callgrind printed no count:\n{printed}"))?;
    number.trim().parse().with_context(|| format!("callgrind's count is not a number: {number}"))
}
