//! A sweep in shards: the merged results are those of one process, and nothing else is merged.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::shared::{PAIRS, json};

pub(crate) const OF: usize = 3;

/// Creates a directory with `pairs.jsonl`, which holds the two pairs `times` times.
pub(crate) fn directory(times: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS.repeat(times)).unwrap();
    directory
}

pub(crate) fn rewire(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
    command.args(arguments).current_dir(directory);
    command
}

/// Runs a command that must succeed; returns its standard output.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = rewire(directory, arguments).output().unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Runs a command that must be refused; returns its error.
pub(crate) fn refused(directory: &Path, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = rewire(directory, arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{arguments:?}: {message}");
    message
}

/// Returns the arguments of a sweep of `pairs.jsonl` into `o`.
fn sweep<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["sweep", "--pairs", "pairs.jsonl", "--out", "o"], more].concat()
}

fn shard(directory: &Path, more: &[&str], number: usize) -> String {
    run(directory, &[&sweep(more)[..], &["--shard", &format!("{number}/{OF}")]].concat())
}

/// Asserts that the files in `o` of both directories are equal, except for the time.
pub(crate) fn assert_same_results(whole: &Path, merged: &Path, what: &str) {
    let names = |directory: &Path| {
        let entries = std::fs::read_dir(directory.join("o")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(merged), names(whole), "{what}");
    for name in names(whole) {
        let paths = [whole, merged].map(|directory| directory.join("o").join(&name));
        if name == "effects.json" {
            let [whole, merged] = paths.map(|path| {
                let mut about: Value = json(&path);
                assert!(about["wall_time_s"].take().is_number());
                assert!(about["started"].take().is_string());
                about
            });
            assert_eq!(merged, whole, "{what}");
        } else {
            let [whole, merged] = paths.map(|path| std::fs::read(path).unwrap());
            assert!(merged == whole, "{name} differs: {what}");
        }
    }
}

/// Sweeps in one process and in shards, and compares the results.
fn assert_merges(times: usize, more: &[&str]) {
    let [whole, merged] = [directory(times), directory(times)];
    let (whole, merged) = (whole.path(), merged.path());
    let what = format!("{more:?}");
    let printed = run(whole, &sweep(more));
    for number in [2, 1, 3] {
        let says = shard(merged, more, number);
        assert!(says.contains(&format!("shard {number}/{OF} is finished: ")), "{what}: {says}");
    }
    let again = run(merged, &["merge", "o"]);
    assert_same_results(whole, merged, &what);
    // Both print the same, except for the time in the last line.
    let without_time = |text: &str| text.lines().rev().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_time(&again), without_time(&printed), "{what}");
}

#[test]
fn merged_patches_are_those_of_one_process() {
    // Forty pairs are two batches of prompts, and two pairs are one.
    assert_merges(20, &["--nodes", "head_z,mlp_out", "--by", "position", "--align", "end"]);
    assert_merges(1, &["--nodes", "resid_pre,head_q", "--per-prompt", "--direction", "noising"]);
    assert_merges(20, &["--metric", "kl", "--nodes", "attn_out"]);
    assert_merges(3, &["--intervals", "--prompt-batch", "1", "--model", "toy-neox"]);
}

#[test]
fn merged_ablations_and_single_nodes_are_those_of_one_process() {
    assert_merges(20, &["--method", "ablation", "--ablate", "mean", "--metric", "logit-diff"]);
    let single = ["--nodes", "head_z:L0H1,head_z:L3H7@end,mlp_out:L2", "--prompt-batch", "2"];
    assert_merges(3, &single);
    assert_merges(3, &[&single[..], &["--method", "ablation"]].concat());
    assert_merges(3, &[&single[..], &["--method", "attribution-patching"]].concat());
    assert_merges(3, &[&single[..], &["--method", "path-patching", "--receivers", "logits"]].concat());
}

#[test]
fn merged_estimates_are_those_of_one_process() {
    assert_merges(12, &["--method", "attribution-patching", "--nodes", "head_z,head_edges"]);
    assert_merges(12, &["--method", "attribution-patching", "--verify", "5"]);
    assert_merges(12, &["--method", "integrated-gradients", "--nodes", "head_z,mlp_post", "--steps", "5"]);
    assert_merges(20, &["--method", "logit-attribution", "--nodes", "head_z,mlp_out", "--metric", "logit-diff"]);
}

#[test]
fn merged_paths_are_those_of_one_process() {
    let receivers = ["--method", "path-patching", "--receivers", "head_q:L3H1,head_v:L2"];
    assert_merges(20, &receivers);
    assert_merges(1, &[&receivers[..], &["--receivers-apart", "--freeze", "direct"]].concat());
}

#[test]
fn more_shards_than_passes_are_merged() {
    let [whole, merged] = [directory(1), directory(1)];
    let more = ["--nodes", "resid_post"];
    run(whole.path(), &sweep(&more));
    for number in 1..=20 {
        run(merged.path(), &[&sweep(&more)[..], &["--shard", &format!("{number}/20")]].concat());
    }
    run(merged.path(), &["merge", "o"]);
    assert_same_results(whole.path(), merged.path(), "20 shards");
}

/// Returns a started shard without output.
fn spawn(directory: &Path, more: &[&str], number: usize) -> Child {
    let part = format!("{number}/{OF}");
    rewire(directory, &[&sweep(more)[..], &["--shard", &part]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns the number of lines in the files of unfinished shards.
pub(crate) fn lines_of_unfinished(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory.join("o/shards")).into_iter().flatten().flatten();
    let partial = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "partial"));
    partial.map(|path| std::fs::read_to_string(path).unwrap_or_default().lines().count()).sum()
}

#[test]
fn a_shard_that_died_is_named_with_the_command_that_finishes_it() {
    let more = ["--nodes", "head_z,head_q,head_k,head_v", "--by", "position", "--prompt-batch", "4"];
    let [whole, merged] = [directory(20), directory(20)];
    let (whole, merged) = (whole.path(), merged.path());
    run(whole, &sweep(&more));
    // The shards run at once.
    let mut others = [1, 3].map(|number| spawn(merged, &more, number));
    others.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    let mut killed = spawn(merged, &more, 2);
    let started = Instant::now();
    while lines_of_unfinished(merged) < 3 && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();

    let message = refused(merged, &["merge", "o"]);
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines[0].starts_with("error: 1 of 3 shards are not finished; run in "), "{message}");
    let (command, done) = lines[1].split_once("  # ").unwrap_or_else(|| panic!("no pass was kept: {message}"));
    assert!(done.ends_with(" done"), "{message}");
    assert!(command.ends_with(" --shard 2/3"), "{message}");
    let in_shell = command.trim().replacen("rewire", env!("CARGO_BIN_EXE_rewire"), 1);
    for says in ["shard 2/3 is finished: ", "shard 2/3 was finished before"] {
        let output = Command::new("sh").args(["-c", &in_shell]).current_dir(merged).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(says), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    run(merged, &["merge", "o"]);
    assert_same_results(whole, merged, "after a kill");
}

#[cfg(target_os = "linux")]
#[test]
fn a_shard_that_a_scheduler_ends_resumes() {
    let more = ["--nodes", "head_z,head_q,head_k,head_v", "--by", "position", "--prompt-batch", "2"];
    let merged = directory(60);
    let merged = merged.path();
    let mut ended = crate::shared::interruptible()
        .args(sweep(&more))
        .args(["--shard", "1/3"])
        .current_dir(merged)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while lines_of_unfinished(merged) < 3 && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &ended.id().to_string()]).status().unwrap().success());
    assert_eq!(ended.wait().unwrap().code(), Some(130));
    let kept = lines_of_unfinished(merged) - 1;
    assert!(kept > 1);
    let says = shard(merged, &more, 1);
    let passes = says.split_once("is finished: ").and_then(|(_, rest)| rest.split_once(" of ")).unwrap().0;
    assert!(kept < passes.parse().unwrap(), "the shard had finished before the signal: {kept}, {says}");
}

#[test]
fn shards_of_another_run_are_refused() {
    let directory = directory(2);
    let directory = directory.path();
    shard(directory, &[], 1);
    for (more, differs) in [
        (&["--metric", "probability"][..], "this run differs in: metric)"),
        (&["--seed", "1"], "differs in: seed)"),
        (&["--model", "toy-neox"], "differs in: model"),
        (&["--no-process-weights"], "differs in: processed weights)"),
    ] {
        let message = refused(directory, &[&sweep(more)[..], &["--shard", "2/3"]].concat());
        assert!(message.contains(differs) && message.contains("--force"), "{more:?}: {message}");
    }
    let message = refused(directory, &[&sweep(&[])[..], &["--shard", "2/4"]].concat());
    assert!(message.contains("differs in: number of shards"), "{message}");
    [2, 3].into_iter().for_each(|number| drop(shard(directory, &[], number)));
    // The pairs change after the shards.
    std::fs::write(directory.join("pairs.jsonl"), PAIRS).unwrap();
    let message = refused(directory, &["merge", "o"]);
    assert!(message.contains("this differs: pairs"), "{message}");
    std::fs::write(directory.join("pairs.jsonl"), PAIRS.repeat(2)).unwrap();
    run(directory, &["merge", "o"]);
    let message = refused(directory, &["merge", "o"]);
    assert!(message.contains("o holds no shards; make them with `rewire sweep .. --shard K/N --out o`"), "{message}");
    // Results of another run are kept.
    let message = refused(directory, &[&sweep(&["--seed", "1"])[..], &["--shard", "1/3"]].concat());
    assert!(message.contains("holds the results of another run"), "{message}");
}

#[test]
fn the_task_of_a_job_array_is_a_shard() {
    let directory = directory(2);
    let auto = [&sweep(&[])[..], &["--shard", "auto"]].concat();
    let message = refused(directory.path(), &auto);
    assert!(message.contains("SLURM_ARRAY_TASK_ID is not set"), "{message}");
    for task in 0..2 {
        let output = rewire(directory.path(), &auto)
            .envs([("SLURM_ARRAY_TASK_ID", task.to_string().as_str()), ("SLURM_ARRAY_TASK_COUNT", "2")])
            .envs([("SLURM_ARRAY_TASK_MIN", "0"), ("SLURM_ARRAY_TASK_MAX", "1")])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(&format!("shard {}/2 is finished", task + 1)), "{printed}");
    }
    run(directory.path(), &["merge", "o"]);
    let command = json(&directory.path().join("o/effects.json"))["command"].clone();
    assert_eq!(command, serde_json::json!(["sweep", "--pairs", "pairs.jsonl", "--out", "o"]));
}
