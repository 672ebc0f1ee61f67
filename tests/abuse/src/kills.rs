//! Kills every long command with SIGKILL at a random moment, in an empty directory or one with
//! older results.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::commands::{self, Line, share};
use crate::program::kill_after;
use crate::results::{check_equal, check_one_run, read};
use crate::trials::Trials;

/// The user's file, which every command must leave unchanged.
const MINE: (&str, &str) = ("my notes.txt", "mine");

/// Kills one command once or several times and lets it finish.
pub(crate) fn kill(trials: &mut Trials) -> anyhow::Result<()> {
    let lines: Vec<Line> = commands::all().collect();
    let line = lines[trials.number() % lines.len()];
    let reference = trials.reference(line)?;
    let directory = trials.fresh()?;
    let out = directory.path().join("o");
    let files = line.files(&out);
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join(MINE.0), MINE.1)?;
    let older = share(&mut trials.random) < 0.5 && line.name != "train-toy";
    if older {
        trials.program.succeed(directory.path(), &["reproduce-facts", "--out", "o"])?;
    }
    let kills = 1 + trials.number() % 3;
    for _ in 0..kills {
        let delay = Duration::from_secs_f64(reference.seconds * 1.1 * share(&mut trials.random));
        kill_after(trials.program.start(directory.path(), &line.replacing("o"))?, delay)?;
        check_one_run(&files).with_context(|| format!("{} killed after {delay:?}", line.name))?;
    }
    let ended = trials.program.succeed(directory.path(), &line.replacing("o"))?;
    ensure!(!ended.stderr.contains("damaged"), "a kill damaged the record: {}", ended.stderr);
    let mut found = read(&files)?;
    ensure!(found.remove(MINE.0).as_deref() == Some(MINE.1.as_bytes()), "the user's own file is gone");
    check_equal(&found, &reference.files).with_context(|| format!("{} killed {kills} times, older: {older}", line.name))
}
