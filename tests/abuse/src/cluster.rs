//! Commands in shards under the faults of a cluster: nodes that vanish, tasks at their time limit,
//! two submissions in one directory, a full or slow directory, and clocks that differ.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::commands::{Line, OTHER_METRIC, SWEEPS, below, divisible, share};
use crate::disks::{Script, in_namespace};
use crate::program::{Program, ended, kill_after, terminate_after};
use crate::results::{check_equal, read};
use crate::trials::{Reference, Trials};

const SHARDS: usize = 3;

/// The source of a library that makes file operations slow and turns a clock around.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/delays.c");

/// Kills some shards, ends some as a scheduler does, and finishes the command as `merge` says.
pub(crate) fn lost(trials: &mut Trials) -> anyhow::Result<()> {
    let (line, reference, directory) = prepare(trials)?;
    let (program, at) = (trials.program.clone(), directory.path());
    for number in 1..=SHARDS {
        let shard = program.start(at, &words(line, number))?;
        let delay = Duration::from_secs_f64(reference.seconds * 1.1 * share(&mut trials.random));
        match below(&mut trials.random, 3) {
            0 => drop(kill_after(shard, delay)?),
            1 => {
                let ended = terminate_after(shard, delay)?;
                // Before the command listens to signals, SIGTERM ends it without an exit code.
                ensure!(matches!(ended.code, Some(0 | 130) | None), "SIGTERM: {:?} {}", ended.code, ended.stderr);
            }
            _ => succeed(shard)?,
        }
    }
    let early = program.run(at, &["merge", "o"])?;
    if early.code != Some(0) {
        let said = ["shards are not finished; run in", "holds no shards"];
        let is_named = said.iter().any(|words| early.stderr.contains(words));
        ensure!(early.code == Some(2) && is_named, "merge: {:?} {}", early.code, early.stderr);
        finish(&program, at, line)?;
    }
    check(at, &reference).with_context(|| format!("{} in shards, some of them lost", line.name))
}

/// Runs two submissions in one directory at once: of the same sweep, or of two.
pub(crate) fn two_submissions(trials: &mut Trials) -> anyhow::Result<()> {
    let is_same = trials.number().is_multiple_of(2);
    let lines = [SWEEPS[0], if is_same { SWEEPS[0] } else { OTHER_METRIC }];
    let references = [trials.reference(lines[0])?, trials.reference(lines[1])?];
    let directory = trials.fresh()?;
    let at = directory.path();
    let mut shards = Vec::new();
    for number in 1..=SHARDS {
        for line in lines {
            shards.push(trials.program.start(at, &words(line, number))?);
            std::thread::sleep(Duration::from_secs_f64(0.1 * share(&mut trials.random)));
        }
    }
    for shard in shards {
        let ended = ended(shard)?;
        let is_refused = !is_same && ended.code == Some(2) && ended.stderr.contains("is a shard of another run");
        ensure!(ended.code == Some(0) || is_refused, "{:?}: {}", ended.code, ended.stderr);
    }
    let merged = trials.program.run(at, &["merge", "o"])?;
    if merged.code == Some(0) {
        let found = read(&at.join("o"))?;
        let is_one = references.iter().any(|reference| check_equal(&found, &reference.files).is_ok());
        ensure!(is_one, "the merged results are those of neither submission");
        return Ok(());
    }
    ensure!(!is_same && merged.code == Some(2), "merge: {:?} {}", merged.code, merged.stderr);
    let chosen = below(&mut trials.random, 2);
    trials.program.succeed(at, &[words(lines[chosen], 1), vec!["--force".to_owned()]].concat())?;
    finish(&trials.program, at, lines[chosen])?;
    check(at, &references[chosen]).context("after two submissions in one directory")
}

/// Fills the shared directory during the shards, and finishes when there is space again.
pub(crate) fn full(trials: &mut Trials) -> anyhow::Result<()> {
    let (line, reference, directory) = prepare(trials)?;
    let at = directory.path();
    std::fs::create_dir(at.join("disk"))?;
    let program = trials.program.path().display().to_string();
    let size = [0, 4, 16, 64, 256, 4096][below(&mut trials.random, 6)];
    let shard = |number: usize| {
        let words: Vec<String> = words(line, number).iter().map(|word| format!("'{word}'")).collect();
        format!("'{program}' {}", words.join(" ").replace("'o'", "'disk/o'"))
    };
    let all: Vec<String> = (1..=SHARDS).map(|number| format!("{} || code=$?", shard(number))).collect();
    let script = format!(
        "mount -t tmpfs -o size=24m tmpfs disk || exit 99\ncode=0\ndd if=/dev/zero of=disk/filler bs=1k >/dev/null 2>&1\n\
         truncate -s -{size}k disk/filler\n{}\n'{program}' merge disk/o || code=$?\nrm disk/filler\n\
         cp -a disk/o o || mkdir -p o\numount disk\nexit $code",
        all.join("\n")
    );
    let (ended, script) = in_namespace(at, &script)?;
    if script == Script::Impossible {
        return Ok(());
    }
    ensure!(matches!(ended.code, Some(0 | 2)), "{:?}: {}", ended.code, ended.stderr);
    if !at.join("o/effects.json").exists() {
        finish(&trials.program, at, line)?;
    }
    check(at, &reference).with_context(|| format!("{} in shards on a disk with {size} kB", line.name))
}

/// Computes the shards at once with slow file operations, and each with another clock.
pub(crate) fn slow(trials: &mut Trials) -> anyhow::Result<()> {
    let library = library().context("cc cannot compile tests/abuse/src/delays.c; install a C compiler")?;
    let (line, reference, directory) = prepare(trials)?;
    let (program, at) = (trials.program.clone(), directory.path());
    let start = |words: &[String], number: usize| -> anyhow::Result<Child> {
        let mut command = program.command(at, words);
        command.env("LD_PRELOAD", library).env("FAULT_DELAY_US", "20000");
        if number.is_multiple_of(2) {
            command.env("FAULT_CLOCK", "backwards");
        }
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let all = 1..=SHARDS;
    let shards: Vec<Child> =
        all.map(|number| start(&words(line, number), number + trials.number())).collect::<Result<_, _>>()?;
    shards.into_iter().try_for_each(succeed)?;
    succeed(start(&["merge".to_owned(), "o".to_owned()], trials.number())?)?;
    check(at, &reference).with_context(|| format!("{} in shards in a slow directory", line.name))
}

/// Returns a command, its undisturbed results, and a directory for its shards.
fn prepare(trials: &mut Trials) -> anyhow::Result<(Line, Reference, tempfile::TempDir)> {
    let lines = divisible();
    let line = lines[trials.number() % lines.len()];
    Ok((line, trials.reference(line)?, trials.fresh()?))
}

/// Returns the command of one shard.
fn words(line: Line, number: usize) -> Vec<String> {
    let shard = format!("{number}/{SHARDS}");
    line.arguments_to("o").into_iter().chain(["--shard", &shard]).map(str::to_owned).collect()
}

/// Computes what is left of the shards, and merges them.
fn finish(program: &Program, directory: &Path, line: Line) -> anyhow::Result<()> {
    for number in 1..=SHARDS {
        program.succeed(directory, &words(line, number))?;
    }
    program.succeed(directory, &["merge", "o"]).map(drop)
}

fn check(directory: &Path, reference: &Reference) -> anyhow::Result<()> {
    check_equal(&read(&directory.join("o"))?, &reference.files)
}

fn succeed(shard: Child) -> anyhow::Result<()> {
    let ended = ended(shard)?;
    ensure!(ended.code == Some(0), "a shard ended with {:?}: {}", ended.code, ended.stderr);
    Ok(())
}

/// Returns the library of `delays.c`, compiled once; `None` if it cannot be compiled.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let compiled = || {
        let directory = tempfile::tempdir().ok()?;
        let path = directory.path().join("delays.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(SOURCE).arg("-ldl");
        compiler.status().is_ok_and(|status| status.success()).then_some((directory, path))
    };
    LIBRARY.get_or_init(compiled).as_ref().map(|(_, path)| path.as_path())
}
