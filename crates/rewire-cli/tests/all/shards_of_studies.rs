//! Reproductions in shards: the merged results are those of one process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::shards::{OF, assert_same_results, directory, lines_of_unfinished, refused, rewire, run};

/// Returns the arguments of a command that writes into `o`.
fn words<'a>(command: &[&'a str]) -> Vec<&'a str> {
    [command, &["--out", "o"]].concat()
}

fn shard(directory: &Path, command: &[&str], number: usize) -> String {
    run(directory, &[&words(command)[..], &["--shard", &format!("{number}/{OF}")]].concat())
}

/// Runs a reproduction in one process and in shards, and compares the results.
fn assert_merges(command: &[&str]) {
    let [whole, merged] = [directory(0), directory(0)];
    let (whole, merged) = (whole.path(), merged.path());
    let printed = run(whole, &words(command));
    for number in [3, 1, 2] {
        let says = shard(merged, command, number);
        let passes = says.split_once("is finished: ").and_then(|(_, rest)| rest.split_once(" of ")).unwrap().0;
        assert!(passes.parse::<usize>().unwrap() > 0, "shard {number} of {command:?} computes nothing: {says}");
    }
    let again = run(merged, &["merge", "o"]);
    assert_same_results(whole, merged, command[0]);
    // Both print the same, except for the time in the last line.
    let without_time = |text: &str| text.lines().rev().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_time(&again), without_time(&printed), "{command:?}");
}

#[test]
fn merged_reproductions_are_those_of_one_process() {
    assert_merges(&["reproduce-ioi", "--prompts", "40"]);
    assert_merges(&["reproduce-ioi", "--prompts", "0", "--model", "toy-neox", "--norm", "frozen"]);
    assert_merges(&["reproduce-ig", "--prompts", "8", "--generated-pairs", "4"]);
    assert_merges(&["reproduce-ig", "--prompts", "0", "--generated-pairs", "0", "--model", "toy-neox"]);
    assert_merges(&["reproduce-facts"]);
}

#[test]
fn a_shard_of_a_reproduction_that_died_is_named_and_resumes() {
    let command = ["reproduce-ioi", "--prompts", "64"];
    let [whole, merged] = [directory(0), directory(0)];
    let (whole, merged) = (whole.path(), merged.path());
    run(whole, &words(&command));
    [1, 3].into_iter().for_each(|number| drop(shard(merged, &command, number)));
    let mut killed = rewire(merged, &[&words(&command)[..], &["--shard", "2/3"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while lines_of_unfinished(merged) < 3 && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let message = refused(merged, &["merge", "o"]);
    let (command, done) = message.lines().nth(1).unwrap().split_once("  # ").unwrap_or_else(|| panic!("{message}"));
    assert!(command.ends_with("--out o --shard 2/3") && done.ends_with(" done"), "{message}");
    let in_shell = command.trim().replacen("rewire", env!("CARGO_BIN_EXE_rewire"), 1);
    assert!(Command::new("sh").args(["-c", &in_shell]).current_dir(merged).status().unwrap().success());
    run(merged, &["merge", "o"]);
    assert_same_results(whole, merged, "after a kill");
}

#[test]
fn shards_of_another_reproduction_are_refused() {
    let directory = directory(1);
    let directory = directory.path();
    shard(directory, &["reproduce-facts"], 1);
    let second = |command: &[&str]| refused(directory, &[&words(command)[..], &["--shard", "2/3"]].concat());
    for (command, differs) in [
        (&["reproduce-facts", "--seed", "1"][..], "differs in: seed)"),
        (&["reproduce-facts", "--model", "toy-neox"], "differs in: "),
        (&["reproduce-ioi"], "command"),
        (&["sweep", "--pairs", "pairs.jsonl"], "command"),
    ] {
        let message = second(command);
        assert!(message.contains(differs) && message.contains("--force"), "{command:?}: {message}");
    }
    let message = second(&["reproduce-pythia"]);
    assert!(message.contains("reproduce-pythia cannot be divided into shards: each of its steps"), "{message}");
}

#[test]
fn scripts_of_a_reproduction_need_its_memory_and_time() {
    let directory = directory(0);
    let slurm = |more: &[&'static str], command: &[&'static str]| {
        [&["slurm", "--shards", "3"][..], more, &["--"], command, &["--out", "o"]].concat()
    };
    let message = refused(directory.path(), &slurm(&[], &["reproduce-ioi"]));
    assert!(
        message.contains("only the memory and time of a sweep are predicted; give --memory and --time"),
        "{message}"
    );
    let limits = ["--memory", "2GiB", "--time", "30"];
    let message = refused(directory.path(), &slurm(&limits, &["reproduce-pythia"]));
    assert!(message.contains("cannot be divided into shards"), "{message}");
    run(directory.path(), &slurm(&limits, &["reproduce-ioi", "--prompts", "40"]));
    let script = std::fs::read_to_string(directory.path().join("o/slurm/shards.sbatch")).unwrap();
    assert!(script.contains(" reproduce-ioi --prompts 40 --out o --shard \"$SLURM_ARRAY_TASK_ID/3\" &\n"), "{script}");
}
