//! Full disks: a small tmpfs, a limit on file sizes, `/dev/full` as standard output and error.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::commands::{Line, OTHERS, SWEEPS, below};
use crate::program::{Ended, checked};
use crate::results::{check_equal, check_one_run, read};
use crate::trials::Trials;

/// Sizes of the file system in kilobytes: too small for a lock, for a record, or for results.
const SIZES: [usize; 5] = [0, 4, 64, 512, 2048];

/// Runs a command on a file system that holds older results and is too small for new ones, and then
/// again with enough space.
pub(crate) fn full(trials: &mut Trials) -> anyhow::Result<()> {
    let lines: Vec<Line> = SWEEPS.into_iter().take(2).chain(OTHERS.into_iter().take(4)).collect();
    let line = lines[trials.number() % lines.len()];
    let size = SIZES[below(&mut trials.random, SIZES.len())];
    let reference = trials.reference(line)?;
    let directory = trials.fresh()?;
    let disk = directory.path().join("disk");
    std::fs::create_dir(&disk)?;
    let older = trials.number().is_multiple_of(2);
    if trials.number() % 4 == 3 {
        return limited_files(trials, directory.path(), line);
    }
    let (ended, script) = on_small_disk(trials, directory.path(), line, size, older)?;
    if script == Script::Impossible {
        return limited_files(trials, directory.path(), line);
    }
    ensure!(ended.code == Some(0) || ended.code == Some(2), "{:?}: {}", ended.code, ended.stderr);
    ensure!(
        ended.code == Some(0) || ended.stderr.lines().any(|line| line.starts_with("error: ")),
        "no word of the full disk: {}",
        ended.stderr
    );
    // The script copied the files to `kept` before it unmounted the disk.
    let kept = directory.path().join("kept/o");
    if kept.exists() {
        check_one_run(&kept).with_context(|| format!("{} on a disk of {size} kB", line.name))?;
    }
    if older && ended.code == Some(2) {
        ensure!(kept.join("effects.json").exists(), "the older results are gone: {}", ended.stderr);
    }
    std::fs::create_dir_all(&kept)?;
    trials.program.succeed(directory.path(), &line.replacing("kept/o"))?;
    check_equal(&read(&kept)?, &reference.files).with_context(|| format!("{} after a full disk", line.name))
}

#[derive(PartialEq)]
pub(crate) enum Script {
    Done,
    /// This machine allows no mounts.
    Impossible,
}

/// Mounts a tmpfs, fills it up to `size` kB, runs the command on it, and copies the files to
/// `kept`.
fn on_small_disk(
    trials: &Trials,
    directory: &Path,
    line: Line,
    size: usize,
    older: bool,
) -> anyhow::Result<(Ended, Script)> {
    let program = trials.program.path().display().to_string();
    let first =
        if older { format!("'{program}' reproduce-facts --out disk/o >/dev/null || exit 97") } else { String::new() };
    let words: Vec<String> = line.replacing("disk/o").iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "mount -t tmpfs -o size=24m tmpfs disk || exit 99\n{first}\n\
         dd if=/dev/zero of=disk/filler bs=1k >/dev/null 2>&1\n\
         truncate -s -{size}k disk/filler\n'{program}' {}\ncode=$?\nrm disk/filler\ncp -a disk kept\numount disk\nexit $code",
        words.join(" ")
    );
    in_namespace(directory, &script)
}

/// Runs a shell script that mounts file systems.
pub(crate) fn in_namespace(directory: &Path, script: &str) -> anyhow::Result<(Ended, Script)> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let mut command = if is_root { Command::new("sh") } else { Command::new("unshare") };
    if !is_root {
        command.args(["--user", "--map-root-user", "--mount", "sh"]);
    }
    let output = command.args(["-c", script]).current_dir(directory).stdin(Stdio::null()).output()?;
    let script = if matches!(output.status.code(), Some(97..=127)) { Script::Impossible } else { Script::Done };
    Ok((checked(&output)?, script))
}

/// Limits the size of files, which ends the process with a signal or an error.
fn limited_files(trials: &mut Trials, directory: &Path, line: Line) -> anyhow::Result<()> {
    trials.program.succeed(directory, &["reproduce-facts", "--out", "o"])?;
    let words: Vec<String> = line.replacing("o").iter().map(|word| format!("'{word}'")).collect();
    let script = format!("ulimit -f 256; exec '{}' {}", trials.program.path().display(), words.join(" "));
    checked(&Command::new("sh").args(["-c", &script]).current_dir(directory).stdin(Stdio::null()).output()?)?;
    let out = directory.join("o");
    check_one_run(&out)?;
    trials.program.succeed(directory, &line.replacing("o"))?;
    check_equal(&read(&out)?, &trials.reference(line)?.files).context("after a limit on file sizes")
}

/// Runs commands with standard output or error on a device that is always full.
pub(crate) fn full_terminal(trials: &mut Trials) -> anyhow::Result<()> {
    let directory = trials.fresh()?;
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full");
    if full().is_err() {
        return Ok(());
    }
    let run = |arguments: &[&str], out: Stdio, err: Stdio| -> anyhow::Result<Ended> {
        checked(&trials.program.command(directory.path(), arguments).stdout(out).stderr(err).output()?)
    };
    let facts = ["reproduce-facts", "--out", "o"];
    let ended = run(&facts, full()?.into(), Stdio::piped())?;
    ensure!(ended.code == Some(2), "numbers on a full standard output: exit code {:?}", ended.code);
    ensure!(ended.stderr.contains("cannot write to standard output"), "{}", ended.stderr);
    let ended = run(&["--help"], full()?.into(), Stdio::piped())?;
    ensure!(ended.code == Some(2), "help on a full standard output: exit code {:?}", ended.code);
    // A refusal that cannot be printed keeps its exit code.
    for refused in [&["sweep", "--pairs", "missing.jsonl"][..], &["sweep"], &["no-such-command"]] {
        let ended = run(refused, Stdio::piped(), full()?.into())?;
        ensure!(ended.code == Some(2), "{refused:?} with a full standard error: exit code {:?}", ended.code);
    }
    let ended = run(&facts, Stdio::piped(), full()?.into())?;
    ensure!(ended.code == Some(0), "a full standard error stopped a command: {:?}", ended.code);
    Ok(())
}
