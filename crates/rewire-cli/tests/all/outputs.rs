//! Finished results are kept unless `--force` is given, and interrupted commands say what remains.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::shared::{PAIRS, json};

/// Creates a directory with `pairs.jsonl`, which holds the two pairs `times` times.
fn directory(times: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS.repeat(times)).unwrap();
    directory
}

fn rewire(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory).output().unwrap()
}

/// Runs a command; returns standard error if it is refused.
fn refused(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = rewire(directory, arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => None,
        code => {
            assert_eq!(code, Some(2), "{message}");
            Some(message)
        }
    }
}

#[test]
fn results_of_another_run_are_replaced_only_with_force() {
    let directory = directory(1);
    let directory = directory.path();
    let sweep = ["sweep", "--pairs", "pairs.jsonl", "--out", "o"];
    let with = |more: &[&str]| refused(directory, &[&sweep, more].concat());
    let results = || std::fs::read(directory.join("o/effects.safetensors")).unwrap();
    assert_eq!(with(&[]), None);
    let first = results();
    for (more, differs) in [
        (&["--metric", "probability"][..], "this run differs in: metric)"),
        (&["--seed", "1"], "differs in: seed)"),
        (&["--intervals"], "differs in: intervals)"),
        (&["--model", "toy-neox"], "differs in: "),
        (&["--no-process-weights"], "differs in: processed weights)"),
    ] {
        let message = with(more).unwrap_or_else(|| panic!("{more:?} replaced the results"));
        for words in ["error: o holds the results of another run (`rewire sweep --pairs pairs.jsonl", "ago", differs] {
            assert!(message.contains(words), "{more:?} does not say {words:?}: {message}");
        }
        assert!(message.contains("choose another --out, or give --force"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let reproduction = refused(directory, &["reproduce-facts", "--out", "o"]).unwrap();
    assert!(reproduction.contains("o holds the results of another run (`rewire sweep"), "{reproduction}");
    std::fs::write(directory.join("pairs.jsonl"), PAIRS.repeat(2)).unwrap();
    assert!(with(&[]).unwrap().contains("differs in: pairs"));
    assert!(results() == first, "a refused command changed the results");

    // The same command, under another file name of the same pairs, may write the same results.
    std::fs::write(directory.join("renamed.jsonl"), PAIRS).unwrap();
    assert_eq!(refused(directory, &["sweep", "--pairs", "renamed.jsonl", "--out", "o"]), None);
    assert!(results() == first);
    assert_eq!(with(&["--force", "--metric", "probability"]), None);
    assert!(results() != first);
    assert_eq!(json(&directory.join("o/effects.json"))["run"]["metric"], "probability");
    assert_eq!(refused(directory, &["reproduce-facts", "--out", "o", "--force"]), None);
    assert_eq!(refused(directory, &["reproduce-facts", "--out", "o"]), None);
    assert!(
        refused(directory, &["reproduce-facts", "--out", "o", "--seed", "3"]).unwrap().contains("differs in: seed")
    );
}

#[test]
fn results_that_rewire_did_not_describe_are_kept() {
    let directory = directory(1);
    let report = directory.path().join("o/report.html");
    std::fs::create_dir(directory.path().join("o")).unwrap();
    std::fs::write(&report, "mine").unwrap();
    let sweep = ["sweep", "--pairs", "pairs.jsonl", "--out", "o"];
    let message = refused(directory.path(), &sweep).unwrap();
    assert!(message.contains("o holds a file report.html that no rewire command describes"), "{message}");
    assert_eq!(std::fs::read(&report).unwrap(), b"mine");
    assert_eq!(refused(directory.path(), &[&sweep[..], &["--force"]].concat()), None);
}

/// Sends SIGINT, as Ctrl-C does, to a command. Tests on Linux only, where `env` can undo that a
/// parent ignores the signal.
#[cfg(target_os = "linux")]
mod interrupted {
    use std::path::Path;
    use std::process::{Child, Command, Output, Stdio};
    use std::time::{Duration, Instant};

    use super::{directory, refused, rewire};

    fn start(directory: &Path, arguments: &[&str]) -> Child {
        Command::new("env")
            .args(["--default-signal=INT", env!("CARGO_BIN_EXE_rewire")])
            .args(arguments)
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Interrupts a command once `is_ready` holds; returns how it ended.
    fn interrupt(mut child: Child, is_ready: impl Fn() -> bool) -> Output {
        let started = Instant::now();
        while !is_ready() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
            assert!(started.elapsed() < Duration::from_secs(120), "it never began");
            std::thread::sleep(Duration::from_millis(2));
        }
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        child.wait_with_output().unwrap()
    }

    #[test]
    fn an_interrupted_sweep_stops_after_its_pass_and_the_same_command_resumes() {
        let directory = directory(10);
        let sweep = ["sweep", "--pairs", "pairs.jsonl", "--nodes", "mlp_post,head_k", "--by", "position", "--out", "o"];
        let record = directory.path().join("o/unfinished.jsonl");
        let passes = || std::fs::read_to_string(&record).map_or(0, |text| text.lines().count());
        let output = interrupt(start(directory.path(), &sweep), || passes() >= 4);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{message}");
        assert!(
            message.contains("interrupted: stopping after the present pass; the same command resumes"),
            "{message}"
        );
        let last = message.lines().last().unwrap();
        let done = last.strip_prefix("interrupted; ").unwrap().split_once(" of ").unwrap();
        assert!(done.1.ends_with(" passes are done; run the same command again to resume"), "{message}");
        // The first line of the record describes the run.
        assert_eq!(done.0.parse::<usize>().unwrap(), passes() - 1);
        assert!(!directory.path().join("o/effects.json").exists());

        let other = [&sweep[..], &["--metric", "probability"]].concat();
        let message = refused(directory.path(), &other).unwrap();
        assert!(message.contains("unfinished run of another command (it differs in: metric)"), "{message}");
        assert!(message.contains("--force"), "{message}");

        let again = rewire(directory.path(), &sweep);
        let printed = String::from_utf8(again.stdout).unwrap();
        assert_eq!(again.status.code(), Some(0));
        assert!(printed.contains(&format!("resuming an unfinished sweep: {} of ", done.0)), "{printed}");
        assert!(!record.exists() && directory.path().join("o/effects.json").exists());
    }

    #[test]
    fn an_unfinished_run_of_another_command_is_discarded_with_force() {
        let directory = directory(10);
        let sweep = ["sweep", "--pairs", "pairs.jsonl", "--nodes", "mlp_post,head_k", "--by", "position", "--out", "o"];
        let record = directory.path().join("o/unfinished.jsonl");
        let output = interrupt(start(directory.path(), &sweep), || record.exists());
        assert_eq!(output.status.code(), Some(130));
        let other = ["sweep", "--pairs", "pairs.jsonl", "--nodes", "attn_out", "--out", "o"];
        assert!(refused(directory.path(), &other).unwrap().contains("unfinished run of another command"));
        assert_eq!(refused(directory.path(), &[&other[..], &["--force"]].concat()), None);
        assert!(!record.exists() && directory.path().join("o/effects.json").exists());
    }

    #[test]
    fn an_interrupted_command_that_cannot_resume_says_that_nothing_was_written() {
        let directory = directory(1);
        let lock = directory.path().join("o/.rewire.lock");
        let command = ["reproduce-ig", "--prompts", "5000", "--out", "o"];
        let output = interrupt(start(directory.path(), &command), || lock.exists());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{message}");
        assert!(message.ends_with("interrupted; nothing was written\n"), "{message}");
        assert!(!directory.path().join("o").exists(), "something was left");
    }
}
