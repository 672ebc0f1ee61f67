//! `rewire slurm` writes scripts for Slurm, and a stand-in for sbatch runs them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::shared::PAIRS;

/// A stand-in for `sbatch`: runs each task of a script in turn. A real Slurm runs in `.ci/slurm`.
const SBATCH: &str = r#"#!/bin/sh
set -eu
echo "$*" >> "$CALLS"
for script in "$@"; do :; done
tasks=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
if [ -n "$tasks" ]; then
  for task in $(seq "$tasks"); do SLURM_ARRAY_TASK_ID=$task bash "$script" >&2; done
  echo "41;cluster"
else
  bash "$script" >&2
  echo 42
fi
"#;

fn rewire(directory: &Path, arguments: &[&str]) -> Output {
    let path = format!("{}:{}", directory.join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
    command.args(arguments).current_dir(directory).env("PATH", path).env("CALLS", directory.join("calls"));
    command.output().unwrap()
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sbatch = directory.path().join("bin/sbatch");
    std::fs::create_dir(sbatch.parent().unwrap()).unwrap();
    std::fs::write(&sbatch, SBATCH).unwrap();
    std::fs::set_permissions(&sbatch, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn the_scripts_compute_the_shards_and_merge_them() {
    let directory = directory();
    let directory = directory.path();
    let sweep = ["--", "sweep", "--pairs", "pairs.jsonl", "--out", "out/it's"];
    let output = rewire(directory, &[&["slurm", "--shards", "3", "--cpus", "2", "--submit"], &sweep[..]].concat());
    let [printed, message] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{message}");
    assert!(printed.contains(" passes in 3 shards; predicted: "), "{printed}");
    assert!(printed.contains("3 tasks of 2 cores, ") && printed.contains("at most 10 min"), "{printed}");
    assert!(printed.contains("submitted: shards 41, merge 42"), "{printed}");
    let calls = std::fs::read_to_string(directory.join("calls")).unwrap();
    assert!(calls.lines().nth(1).unwrap().contains("--dependency=afterok:41 "), "{calls}");
    assert!(directory.join("out/it's/report.html").exists());
    assert!(!directory.join("out/it's/shards").exists());
}

#[test]
fn given_limits_are_used_and_nothing_is_predicted() {
    let directory = directory();
    let directory = directory.path();
    let limits = ["slurm", "--shards", "2", "--memory", "3GiB", "--time", "90", "--gpu", "--sbatch=--partition=gpu"];
    let sweep = ["--", "sweep", "--pairs", "pairs.jsonl", "--out", "o"];
    let output = rewire(directory, &[&limits[..], &sweep].concat());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("2 tasks of 4 cores, 1 GPU, 3072 MiB, at most 1.5 h"), "{printed}");
    let script = std::fs::read_to_string(directory.join("o/slurm/shards.sbatch")).unwrap();
    assert!(script.contains("#SBATCH --partition=gpu\n") && script.contains("#SBATCH --mem=3072M\n"), "{script}");
    assert!(!directory.join("calls").exists(), "it was submitted");
    // The error of an unfinished run names the script.
    let shard = ["sweep", "--pairs", "pairs.jsonl", "--out", "o", "--shard", "2/2"];
    assert!(rewire(directory, &shard).status.success());
    let message = String::from_utf8(rewire(directory, &["merge", "o"]).stderr).unwrap();
    assert!(message.contains("or on Slurm: sbatch --array=1 o/slurm/shards.sbatch"), "{message}");
}

#[test]
fn commands_that_cannot_be_divided_are_refused() {
    let directory = directory();
    let refused = |arguments: &[&str]| {
        let output = rewire(directory.path(), &[&["slurm", "--shards", "2", "--"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(
        refused(&["models"]).contains("only sweep, reproduce-ioi, reproduce-ig and reproduce-facts can be divided")
    );
    assert!(refused(&["sweep", "--pairs", "pairs.jsonl", "--shard", "1/2"]).contains("remove --shard"));
    assert!(refused(&["sweep", "--pears", "x"]).contains("the command after -- is refused"));
    assert!(refused(&["sweep", "--pairs", "absent.jsonl"]).contains("absent.jsonl"));
}
