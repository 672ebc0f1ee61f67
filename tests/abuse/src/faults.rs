//! Output directories that are symlinks, are not UTF-8, or hold the user's files.

use std::path::Path;

use anyhow::ensure;
use rewire_store::RECORD;

use crate::commands::SWEEPS;
use crate::results::{check_equal, check_one_run, read};
use crate::trials::Trials;

/// An output directory whose name is not UTF-8 gets its results.
#[cfg(unix)]
pub(crate) fn odd_names(trials: &mut Trials) -> anyhow::Result<()> {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    let line = SWEEPS[0];
    let reference = trials.reference(line)?;
    let directory = trials.fresh()?;
    let name = OsStr::from_bytes(b"o\xff\xfe");
    let mut words: Vec<OsString> = line.arguments_to("").iter().map(OsString::from).collect();
    words.pop();
    words.push(name.to_owned());
    trials.program.succeed(directory.path(), &words)?;
    check_equal(&read(&directory.path().join(name))?, &reference.files)
}

/// On other systems names are Unicode.
#[cfg(not(unix))]
pub(crate) fn odd_names(_: &mut Trials) -> anyhow::Result<()> {
    Ok(())
}

/// The user's files and symlinks with our names are refused at the start and kept.
#[cfg(unix)]
pub(crate) fn files_of_the_users(trials: &mut Trials) -> anyhow::Result<()> {
    use std::os::unix::fs::symlink;
    let line = SWEEPS[0];
    let directory = trials.fresh()?;
    let (out, target) = (directory.path().join("o"), directory.path().join("target"));
    std::fs::create_dir(&out)?;
    let refused = |what: &str| -> anyhow::Result<()> {
        let ended = trials.program.run(directory.path(), &line.arguments_to("o"))?;
        ensure!(
            ended.code == Some(2) && ended.stderr.lines().count() == 1,
            "{what}: {:?} {}",
            ended.code,
            ended.stderr
        );
        Ok(())
    };
    for name in [RECORD, "effects.safetensors", ".rewire.lock"] {
        symlink(&target, out.join(name))?;
        refused(&format!("a symlink {name}"))?;
        ensure!(!target.exists() && out.join(name).is_symlink(), "the symlink {name} was written through or replaced");
        std::fs::remove_file(out.join(name))?;
    }
    for name in [RECORD, ".rewire.lock"] {
        std::fs::write(out.join(name), "my own notes")?;
        refused(&format!("my own {name}"))?;
        ensure!(std::fs::read(out.join(name))? == b"my own notes", "my own {name} was changed");
        std::fs::remove_file(out.join(name))?;
    }
    std::fs::remove_dir(&out)?;
    symlink(directory.path().join("nowhere"), &out)?;
    refused("an output directory that is a symlink to nowhere")
}

/// On other systems symlinks need a privilege.
#[cfg(not(unix))]
pub(crate) fn files_of_the_users(_: &mut Trials) -> anyhow::Result<()> {
    Ok(())
}

/// Removes the record, the lock or the whole directory during a command.
pub(crate) fn removals(trials: &mut Trials) -> anyhow::Result<()> {
    let line = SWEEPS[0];
    let reference = trials.reference(line)?;
    let directory = trials.fresh()?;
    let out = directory.path().join("o");
    let child = trials.program.start(directory.path(), &line.arguments_to("o"))?;
    std::thread::sleep(std::time::Duration::from_secs_f64(
        reference.seconds * (0.2 + 0.6 * crate::commands::share(&mut trials.random)),
    ));
    let mut were_results_removed = false;
    match trials.count % 3 {
        0 => remove(&out.join(RECORD)),
        1 => remove(&out.join(".rewire.lock")),
        _ => were_results_removed = remove_directory(&out),
    }
    let ended = crate::program::ended(child)?;
    if were_results_removed {
        trials.program.succeed(directory.path(), &line.arguments_to("o"))?;
    } else if ended.code != Some(0) {
        ensure!(ended.code == Some(2), "{:?}: {}", ended.code, ended.stderr);
        trials.program.succeed(directory.path(), &line.arguments_to("o"))?;
    }
    check_one_run(&out)?;
    check_equal(&read(&out)?, &reference.files)
}

/// Removes an output directory; returns whether it held results, because the command then need not
/// write them again.
fn remove_directory(out: &Path) -> bool {
    let aside = out.with_file_name("removed");
    // In one step, so that no results appear between the check and the removal.
    if std::fs::rename(out, &aside).is_err() {
        return false;
    }
    let had_results = aside.join("effects.safetensors").exists();
    let _ = std::fs::remove_dir_all(&aside);
    had_results
}

fn remove(path: &Path) {
    // It may not exist yet, or no longer.
    let _ = std::fs::remove_file(path);
}
