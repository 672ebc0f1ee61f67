//! Two runs with different metrics in one output directory, killed or not.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::commands::{OTHER_METRIC, SWEEPS, share, start};
use crate::program::{ended, kill_after};
use crate::results::{check_equal, check_one_run, read};
use crate::trials::Trials;

/// Starts two sweeps at almost the same moment. In every second trial both are killed. Then one of
/// them is run again and must give its own numbers.
pub(crate) fn race(trials: &mut Trials) -> anyhow::Result<()> {
    let lines = [SWEEPS[0], OTHER_METRIC];
    let references = [trials.reference(lines[0])?, trials.reference(lines[1])?];
    let directory = trials.fresh()?;
    let out = directory.path().join("o");
    let apart = Duration::from_secs_f64(0.05 * share(&mut trials.random));
    let first = start(&trials.program, directory.path(), lines[0], "o")?;
    std::thread::sleep(apart);
    let second = start(&trials.program, directory.path(), lines[1], "o")?;
    if trials.number().is_multiple_of(2) {
        for child in [first, second] {
            kill_after(child, Duration::from_secs_f64(references[0].seconds * 0.6 * share(&mut trials.random)))?;
        }
    } else {
        let codes = [ended(first)?, ended(second)?];
        let winners = codes.iter().filter(|ended| ended.code == Some(0)).count();
        ensure!(winners >= 1, "both were refused: {} {}", codes[0].stderr, codes[1].stderr);
        for loser in codes.iter().filter(|ended| ended.code != Some(0)) {
            let names_the_other_run = ["another run is writing to", "holds the results of another run"];
            let names_the_other_run = names_the_other_run.iter().any(|words| loser.stderr.contains(words));
            ensure!(loser.code == Some(2) && names_the_other_run, "refused with {:?}: {}", loser.code, loser.stderr);
        }
    }
    check_one_run(&out)?;
    let again = usize::from(share(&mut trials.random) < 0.5);
    let tried = trials.program.run(directory.path(), &lines[again].arguments_to("o"))?;
    // A directory with the record or the results of the other run is refused, and the error says
    // so.
    let again = match tried.code {
        Some(0) => again,
        _ => {
            let said = ["unfinished run of another command", "holds the results of another run"];
            ensure!(said.iter().any(|words| tried.stderr.contains(words)), "refused: {}", tried.stderr);
            trials.program.succeed(directory.path(), &lines[1 - again].arguments_to("o"))?;
            1 - again
        }
    };
    check_equal(&read(&out)?, &references[again].files).context("results after two runs in one directory")
}

/// Checks that a second run with `--wait --force` starts after the first and leaves its own
/// results.
pub(crate) fn wait(trials: &mut Trials) -> anyhow::Result<()> {
    let lines = [SWEEPS[0], OTHER_METRIC];
    let reference = trials.reference(lines[1])?;
    let directory = trials.fresh()?;
    let first = start(&trials.program, directory.path(), lines[0], "o")?;
    std::thread::sleep(Duration::from_secs_f64(reference.seconds * 0.5));
    let second = trials.program.start(directory.path(), &[lines[1].replacing("o").as_slice(), &["--wait"]].concat())?;
    let (first, second) = (ended(first)?, ended(second)?);
    ensure!(first.code == Some(0) && second.code == Some(0), "{}{}", first.stderr, second.stderr);
    check_equal(&read(&directory.path().join("o"))?, &reference.files).context("results of the run that waited")
}
