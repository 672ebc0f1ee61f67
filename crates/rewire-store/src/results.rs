//! Results that appear together.
//!
//! 1. Every file is written in full below `.rewire-results.partial`.
//! 2. That directory is renamed to `.rewire-results`: from here on the new results count.
//! 3. [`INCOMPLETE`] is written, files are moved over the old ones, outdated files are removed.
//! 4. `.rewire-results` and [`INCOMPLETE`] are removed.
//!
//! A process that dies in step 1 leaves the old results. A process that dies in step 3 or 4 leaves
//! everything that [`finish`] needs.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// Name of the file that marks a directory whose results are being replaced.
pub const INCOMPLETE: &str = "RESULTS-INCOMPLETE.txt";

const PARTIAL: &str = ".rewire-results.partial";
const WHOLE: &str = ".rewire-results";
/// Folder in [`WHOLE`] with the new files. [`OUTDATED`] beside it has the names of outdated files.
const FILES: &str = "files";
const OUTDATED: &str = "outdated.json";

const NOTE: &str = "Results in this directory are being replaced. If no rewire command is running here, one was ended in the\n\
                    middle of it, and files here may belong to two runs. Run any rewire command with this --out to finish\n\
                    the replacement, or move the files in .rewire-results/files here by hand.\n";

/// Replaces the results. The caller has checked the names.
pub(crate) fn publish(directory: &Path, files: &[(&str, Vec<u8>)], outdated: &[String]) -> Result<(), StoreError> {
    let partial = directory.join(PARTIAL);
    if let Err(error) = write_all(&partial, files, outdated) {
        // The disk may be full, and the files written so far only use space.
        let _ = std::fs::remove_dir_all(&partial);
        return Err(error);
    }
    let whole = directory.join(WHOLE);
    std::fs::rename(&partial, &whole).map_err(|source| StoreError::Write { path: whole.clone(), source })?;
    move_all(directory, &whole)
}

/// Finishes steps 3 and 4 for a process that died in them. Returns a sentence if there was
/// something to finish.
pub(crate) fn finish(directory: &Path) -> Result<Option<String>, StoreError> {
    let whole = directory.join(WHOLE);
    if std::fs::symlink_metadata(&whole).is_ok_and(|found| found.is_dir()) {
        move_all(directory, &whole)?;
        return Ok(Some(format!(
            "finished replacing the results in {}; an earlier run had ended during the replacement",
            directory.display()
        )));
    }
    match std::fs::read_to_string(directory.join(INCOMPLETE)) {
        Ok(note) if note == NOTE => remove(&directory.join(INCOMPLETE)).map(|()| None),
        _ => Ok(None),
    }
}

/// Removes the temporary files of a dead run.
pub(crate) fn remove_leftovers(directory: &Path) -> Result<(), StoreError> {
    let read = |source| StoreError::Read { path: directory.into(), source };
    for entry in std::fs::read_dir(directory).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = entry.path();
        let is_clock = name.starts_with(".rewire-clock");
        if name == PARTIAL && entry.file_type().map_err(read)?.is_dir() {
            std::fs::remove_dir_all(&path).map_err(|source| StoreError::Write { path, source })?;
        } else if is_clock || name.starts_with(TEMPORARY) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn write_all(partial: &Path, files: &[(&str, Vec<u8>)], outdated: &[String]) -> Result<(), StoreError> {
    let below = partial.join(FILES);
    let failed = |path: &Path, source| StoreError::Write { path: path.into(), source };
    std::fs::create_dir_all(&below).map_err(|e| failed(&below, e))?;
    for (name, contents) in files {
        let path = below.join(name);
        write_synced(&path, contents).map_err(|e| failed(&path, e))?;
    }
    let path = partial.join(OUTDATED);
    let names = serde_json::to_vec(outdated).map_err(|e| failed(&path, e.into()))?;
    write_synced(&path, &names).map_err(|e| failed(&path, e))?;
    // The note is written now, because a full disk still changes no result.
    let path = partial.join(INCOMPLETE);
    write_synced(&path, NOTE.as_bytes()).map_err(|e| failed(&path, e))
}

fn write_synced(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn move_all(directory: &Path, whole: &Path) -> Result<(), StoreError> {
    let note = whole.join(INCOMPLETE);
    if note.exists() {
        rename(&note, &directory.join(INCOMPLETE))?;
    }
    let below = whole.join(FILES);
    for path in entries(&below)? {
        if let Some(name) = path.file_name() {
            let target = directory.join(name);
            check_result(&target)?;
            rename(&path, &target)?;
        }
    }
    let outdated = std::fs::read(whole.join(OUTDATED)).unwrap_or_default();
    let outdated: Vec<String> = serde_json::from_slice(&outdated).unwrap_or_default();
    // Names with a path are skipped, so that nothing outside the directory is removed.
    for name in outdated.iter().filter(|name| Path::new(name).file_name().is_some_and(|n| n == name.as_str())) {
        remove(&directory.join(name))?;
    }
    std::fs::remove_dir_all(whole).map_err(|source| StoreError::Write { path: whole.into(), source })?;
    remove(&directory.join(INCOMPLETE))?;
    // The moves must be on the disk before the record of the run is removed. Not every file system
    // can sync a directory, and a kill without a power failure does not need it.
    if let Ok(opened) = File::open(directory) {
        let _ = opened.sync_all();
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(StoreError::Read { path: directory.into(), source }),
        Ok(entries) => entries
            .map(|entry| Ok(entry.map_err(|source| StoreError::Read { path: directory.into(), source })?.path()))
            .collect(),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(|source| StoreError::Write { path: to.into(), source })
}

/// Removes a file, if it exists.
fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::Write { path: path.into(), source: e }),
        _ => Ok(()),
    }
}

/// Prefix of the record's temporary files.
pub(crate) const TEMPORARY: &str = ".rewire-record";

/// Refuses to replace anything but a regular file.
pub(crate) fn check_result(path: &Path) -> Result<(), StoreError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => "a directory",
        Ok(found) if found.is_symlink() => "a symlink",
        Ok(found) if !found.is_file() => "not a regular file",
        _ => return Ok(()),
    };
    Err(StoreError::NotAFile { path: path.into(), found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let name = |e: io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn old_results() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "old", "mine"] {
            std::fs::write(directory.path().join(name), "old").unwrap();
        }
        directory
    }

    fn new_results() -> [(&'static str, Vec<u8>); 2] {
        [("a", b"new".to_vec()), ("b", b"new".to_vec())]
    }

    #[test]
    fn new_results_replace_old_ones_and_keep_other_files() {
        let directory = old_results();
        publish(directory.path(), &new_results(), &["old".to_owned(), "../outside".to_owned()]).unwrap();
        assert_eq!(names(directory.path()), ["a", "b", "mine"]);
        assert_eq!(std::fs::read_to_string(directory.path().join("b")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(directory.path().join("mine")).unwrap(), "old");
    }

    #[test]
    fn a_run_killed_before_its_results_are_complete_changes_nothing() {
        let directory = old_results();
        write_all(&directory.path().join(PARTIAL), &new_results(), &[]).unwrap();
        assert_eq!(finish(directory.path()).unwrap(), None);
        remove_leftovers(directory.path()).unwrap();
        assert_eq!(names(directory.path()), ["a", "b", "mine", "old"]);
        assert_eq!(std::fs::read_to_string(directory.path().join("a")).unwrap(), "old");
    }

    #[test]
    fn a_run_killed_while_moving_results_is_detected_and_finished() {
        for moved in 0..=2 {
            let directory = old_results();
            let [partial, whole] = [PARTIAL, WHOLE].map(|name| directory.path().join(name));
            write_all(&partial, &new_results(), &["old".to_owned()]).unwrap();
            std::fs::rename(&partial, &whole).unwrap();
            if moved > 0 {
                std::fs::rename(whole.join(INCOMPLETE), directory.path().join(INCOMPLETE)).unwrap();
            }
            if moved > 1 {
                std::fs::rename(whole.join(FILES).join("a"), directory.path().join("a")).unwrap();
                assert!(directory.path().join(INCOMPLETE).exists(), "results of two runs, and nothing says so");
            }
            assert!(finish(directory.path()).unwrap().unwrap().contains("finished replacing"));
            assert_eq!(names(directory.path()), ["a", "b", "mine"], "{moved} moved");
            assert_eq!(std::fs::read_to_string(directory.path().join("a")).unwrap(), "new");
        }
    }

    #[test]
    fn a_full_disk_keeps_the_old_results() {
        let directory = old_results();
        // A name that cannot be written stands for a full disk.
        let files = [("a", b"new".to_vec()), ("no/where", b"new".to_vec())];
        assert!(publish(directory.path(), &files, &[]).is_err());
        assert_eq!(names(directory.path()), ["a", "b", "mine", "old"]);
        assert_eq!(std::fs::read_to_string(directory.path().join("a")).unwrap(), "old");
    }
}
