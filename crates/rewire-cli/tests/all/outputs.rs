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
    let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
    // Help has 100 columns if the terminal is unknown.
    command.args(arguments).current_dir(directory).env_remove("COLUMNS").output().unwrap()
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

#[test]
fn converted_pairs_replace_a_file_only_with_force() {
    let directory = directory(1);
    let one = PAIRS.lines().next().unwrap();
    std::fs::write(directory.path().join("one.jsonl"), one).unwrap();
    let printed = rewire(directory.path(), &["pairs", "check", "one.jsonl"]).stdout;
    assert!(String::from_utf8(printed).unwrap().starts_with("1 pair from "));
    let convert = ["pairs", "convert", "one.jsonl", "--out", "pairs.jsonl"];
    let message = refused(directory.path(), &convert).unwrap();
    assert!(message.contains("pairs.jsonl exists; give --force to replace it"), "{message}");
    assert_eq!(std::fs::read_to_string(directory.path().join("pairs.jsonl")).unwrap(), PAIRS);
    let output = rewire(directory.path(), &[&convert[..], &["--force"]].concat());
    assert_eq!(output.stdout, b"1 pair written to pairs.jsonl\n");
    // `-` is standard output.
    let written = std::fs::read(directory.path().join("pairs.jsonl")).unwrap();
    assert_eq!(rewire(directory.path(), &["pairs", "convert", "one.jsonl", "--out", "-"]).stdout, written);
    let missing = refused(directory.path(), &["pairs", "convert", "one.jsonl", "--out", "no/a.jsonl"]).unwrap();
    assert!(missing.contains("no is no directory") && !missing.contains(".tmp"), "{missing}");
}

#[cfg(unix)]
#[test]
fn converted_pairs_replace_no_device_and_no_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let directory = directory(1);
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("mine"), "mine").unwrap();
    symlink(at("mine"), at("link")).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    for out in ["link", "socket", "folder"] {
        let convert = ["pairs", "convert", "pairs.jsonl", "--force", "--out", out];
        let message = refused(directory.path(), &convert).unwrap();
        assert!(message.contains(&format!("{out} is not a regular file")), "{message}");
    }
    assert_eq!(std::fs::read(at("mine")).unwrap(), b"mine");
    assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink());
    rewire(directory.path(), &["pairs", "convert", "pairs.jsonl", "--out", "new.jsonl"]);
    let mode = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode();
    assert_eq!(mode("new.jsonl"), mode("mine"), "the file is not like other new files");
}

#[test]
fn a_file_in_place_of_the_output_directory_is_named() {
    let directory = directory(1);
    for out in ["pairs.jsonl", "pairs.jsonl/o"] {
        let message = refused(directory.path(), &["sweep", "--pairs", "pairs.jsonl", "--out", out]).unwrap();
        assert!(message.contains("pairs.jsonl is not a directory"), "{message}");
    }
}

#[test]
fn models_are_listed_in_two_columns() {
    let printed = String::from_utf8(rewire(directory(1).path(), &["models"]).stdout).unwrap();
    let starts: Vec<Option<usize>> = ["in this program", "openai-community/gpt2 on the hub", "EleutherAI/pythia-2.8b"]
        .iter()
        .map(|place| printed.lines().find_map(|line| line.find(place)))
        .collect();
    assert!(starts[0].is_some() && starts.iter().all(|start| *start == starts[0]), "{printed}");
}

#[test]
fn short_help_has_one_line_for_each_option_under_its_method() {
    for (command, headings) in [
        (
            "sweep",
            &["Prompts:", "What to compute:", "Path patching:", "Integrated gradients:", "Compute:", "Output:"][..],
        ),
        ("reproduce-ioi", &["Prompts:", "What to compute:", "Model:", "Compute:", "Output:"]),
        ("reproduce-ig", &["Prompts:", "Integrated gradients:", "Output:"]),
        ("reproduce-pythia", &["Prompts:", "What to compute:", "Output:"]),
        ("reproduce-facts", &["Prompts:", "Model:", "Output:"]),
    ] {
        let nowhere = directory(1);
        let [short, long] = ["-h", "--help"].map(|flag| {
            let output = rewire(nowhere.path(), &[command, flag]);
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        });
        for heading in headings {
            assert!(short.lines().any(|line| line == *heading), "{command}: no heading {heading} in {short}");
        }
        for line in short.lines() {
            assert!(line.chars().count() <= 110, "{command}: {line}");
        }
        let options = short.lines().skip_while(|line| !line.starts_with("Usage:")).filter(|line| !line.is_empty());
        let wrapped: Vec<&str> = options.filter(|line| line.starts_with("          ")).collect();
        assert!(wrapped.is_empty(), "{command}: {wrapped:?}");
        assert!(long.len() > short.len());
    }
    let long = String::from_utf8(rewire(directory(1).path(), &["sweep", "--help"]).stdout).unwrap();
    assert!(long.starts_with("Examples:\n") && long.matches("    rewire sweep --pairs").count() == 3, "{long}");
}

#[test]
fn rewire_alone_lists_its_commands_with_one_line_each() {
    let output = rewire(directory(1).path(), &[]);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let lines = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    assert!(lines.len() >= 8 && lines[0].trim_start().starts_with("sweep "), "{text}");
    assert!(lines.iter().all(|line| !line.starts_with("    ") && line.len() <= 100), "{text}");
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
        crate::shared::interruptible()
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
        // The command holds its directory a moment before it begins to compute.
        let is_computing = || {
            lock.exists() && {
                std::thread::sleep(Duration::from_millis(200));
                true
            }
        };
        let output = interrupt(start(directory.path(), &command), is_computing);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{message}");
        assert!(message.ends_with("interrupted; nothing was written\n"), "{message}");
        assert!(!directory.path().join("o").exists(), "something was left");
    }
}
