//! An output directory that one run holds.

use crate::results::check_result;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::StoreError;
use crate::lock::{Attempt, Lock, remove_if_same};
use crate::results;

/// Time between the attempts of a waiting run.
const PAUSE: Duration = Duration::from_millis(200);

/// What to do while another run holds the directory.
pub enum Waiting<'a> {
    /// Return [`StoreError::Held`].
    Refuse,
    /// Wait until the other run ends. Calls the function once, with a description of that run.
    Wait(&'a dyn Fn(&str)),
}

/// The traces of an [`OutputDirectory`] that only [`remove`](Self::remove) removes if the process
/// ends without dropping the directory.
#[derive(Debug, Default)]
pub struct Traces {
    lock: Option<(PathBuf, File)>,
    made: Vec<PathBuf>,
}

impl Traces {
    /// Removes the lock of the directory, and each directory that it made and that is empty. Does
    /// nothing once the directory is dropped.
    pub fn remove(&self) {
        if let Some((path, file)) = &self.lock {
            remove_if_same(path, file);
        }
        remove_empty(&self.made);
    }
}

/// An output directory that this process holds alone, until the value is dropped.
///
/// Dropping it removes its lock, and each directory that it made and that is empty.
#[derive(Debug)]
pub struct OutputDirectory {
    path: PathBuf,
    /// Directories that did not exist before, the deepest first.
    made: Vec<PathBuf>,
    notices: Vec<String>,
    lock: Option<Lock>,
}

impl OutputDirectory {
    /// Locks `path` for the run that `command` describes, and makes the directory if it is absent.
    ///
    /// `results` are the names of the files that the run will write. Removes the leftovers of a
    /// dead run, and finishes [publishing](Self::publish) if that run died during it.
    ///
    /// # Errors
    /// [`StoreError`] if the directory cannot be written to, another run holds it, or one of the
    /// `results` exists and is not a regular file.
    pub fn take(path: &Path, results: &[&str], command: &str, waiting: Waiting<'_>) -> Result<Self, StoreError> {
        check_place(path)?;
        let made = absent(path);
        let mut directory = Self { path: path.into(), made, notices: Vec::new(), lock: None };
        directory.create()?;
        directory.lock = Some(wait(path, command, waiting)?);
        directory.notices.extend(results::finish(path)?);
        results::remove_leftovers(path)?;
        results.iter().try_for_each(|name| check_result(&path.join(name)))?;
        Ok(directory)
    }

    /// Returns the directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the traces to remove before the process ends without dropping this value, for
    /// example from the handler of a signal.
    #[must_use]
    pub fn traces(&self) -> Traces {
        Traces { lock: self.lock.as_ref().and_then(|lock| lock.file().ok()), made: self.made.clone() }
    }

    /// Returns sentences about the leftovers of a dead run that were finished.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Replaces the results in the directory by `files` (name and contents), and removes the files
    /// named in `outdated`.
    ///
    /// All files are written in full to a directory beside the results and then moved. A full disk
    /// therefore changes no result. If the process dies while files are moved, the file
    /// [`INCOMPLETE`](crate::INCOMPLETE) remains, and the next [`take`](Self::take) moves the rest.
    ///
    /// # Errors
    /// [`StoreError::Write`] if a file cannot be written, [`StoreError::NotAFile`] if a result
    /// exists and is not a regular file, or [`StoreError::Lost`] if another run took the directory
    /// over.
    pub fn publish(&self, files: &[(&str, Vec<u8>)], outdated: &[String]) -> Result<(), StoreError> {
        // Somebody may have removed the directory in the meantime. It is made again, because the
        // results must not be lost.
        self.create()?;
        self.check_held()?;
        files.iter().try_for_each(|(name, _)| check_result(&self.path.join(name)))?;
        results::publish(&self.path, files, outdated)
    }

    /// Returns [`StoreError::Lost`] if another run holds the directory now.
    pub(crate) fn check_held(&self) -> Result<(), StoreError> {
        match &self.lock {
            Some(lock) if !lock.is_held() && crate::lock::exists(&self.path) => {
                Err(StoreError::Lost { path: self.path.clone() })
            }
            _ => Ok(()),
        }
    }

    fn create(&self) -> Result<(), StoreError> {
        std::fs::create_dir_all(&self.path).map_err(|source| StoreError::Directory { path: self.path.clone(), source })
    }
}

impl Drop for OutputDirectory {
    fn drop(&mut self) {
        drop(self.lock.take());
        remove_empty(&self.made);
    }
}

/// Removes these directories, the deepest first, as long as they are empty.
fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        // This fails for a directory that is not empty, which then stays.
        let _ = std::fs::remove_dir(directory);
    }
}

fn wait(path: &Path, command: &str, waiting: Waiting<'_>) -> Result<Lock, StoreError> {
    let mut has_notified = false;
    loop {
        let holder = match Lock::attempt(path, command) {
            Ok(Attempt::Taken(lock)) => return Ok(lock),
            Ok(Attempt::Held(holder)) => holder,
            // A holder that ends removes the directory if it is empty.
            Err(StoreError::Directory { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).map_err(|source| StoreError::Directory { path: path.into(), source })?;
                continue;
            }
            Err(error) => return Err(error),
        };
        match &waiting {
            Waiting::Refuse => return Err(StoreError::Held { path: path.into(), holder }),
            Waiting::Wait(tell) => {
                if !has_notified {
                    tell(&holder);
                    has_notified = true;
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Refuses a path at which no directory can be made.
pub(crate) fn check_place(path: &Path) -> Result<(), StoreError> {
    check_symlink(path)?;
    check_ancestors(path)
}

/// Refuses a symlink to an absent target. Making a directory there would fail with "File exists".
fn check_symlink(path: &Path) -> Result<(), StoreError> {
    for ancestor in path.ancestors() {
        if let (Ok(target), Err(_)) = (std::fs::read_link(ancestor), std::fs::metadata(ancestor)) {
            return Err(StoreError::DanglingSymlink { path: ancestor.into(), target });
        }
    }
    Ok(())
}

/// Refuses a path that is a file, or lies below one.
fn check_ancestors(path: &Path) -> Result<(), StoreError> {
    let is_file = |ancestor: &&Path| std::fs::metadata(ancestor).is_ok_and(|found| !found.is_dir());
    match path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()).find(is_file) {
        Some(file) => Err(StoreError::NotADirectory { path: path.into(), file: file.into() }),
        None => Ok(()),
    }
}

/// Returns the directories of `path` that do not exist, the deepest first.
fn absent(path: &Path) -> Vec<PathBuf> {
    let absent = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists());
    absent.map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(path: &Path) -> Result<OutputDirectory, StoreError> {
        OutputDirectory::take(path, &["a.txt"], "test", Waiting::Refuse)
    }

    #[test]
    fn a_file_on_the_way_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        for path in [file.clone(), file.join("out")] {
            let message = take(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("{} is not a directory", file.display())), "{message}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn a_run_that_writes_nothing_leaves_no_directory() {
        let temporary = tempfile::tempdir().unwrap();
        drop(take(&temporary.path().join("deep/out")).unwrap());
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        std::fs::create_dir(temporary.path().join("mine")).unwrap();
        drop(take(&temporary.path().join("mine")).unwrap());
        assert!(temporary.path().join("mine").exists());
    }

    #[test]
    fn traces_are_removed_and_results_are_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("deep/out");
        let directory = take(&path).unwrap();
        let traces = directory.traces();
        // A process that ends drops nothing.
        std::mem::forget(directory);
        traces.remove();
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        let directory = take(&path).unwrap();
        directory.publish(&[("a.txt", vec![1])], &[]).unwrap();
        directory.traces().remove();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_second_run_is_refused_or_waits() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("out");
        let first = take(&path).unwrap();
        let refused = take(&path).unwrap_err().to_string();
        assert!(refused.contains("another run is writing to") && refused.contains("--wait"), "{refused}");
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let waiting = scope.spawn({
                let path = &path;
                move || {
                    let tell = |holder: &str| sender.send(holder.to_owned()).unwrap();
                    OutputDirectory::take(path, &[], "second", Waiting::Wait(&tell)).map(|_| ())
                }
            });
            assert!(receiver.recv().unwrap().contains("test"));
            assert!(!waiting.is_finished());
            drop(first);
            waiting.join().unwrap().unwrap();
        });
    }

    #[cfg(unix)]
    #[test]
    fn dangling_symlinks_and_directories_in_place_of_results_are_refused_at_the_start() {
        let temporary = tempfile::tempdir().unwrap();
        let [link, below] = ["link", "link/below"].map(|name| temporary.path().join(name));
        std::os::unix::fs::symlink(temporary.path().join("nowhere"), &link).unwrap();
        for path in [&link, &below] {
            assert!(matches!(take(path), Err(StoreError::DanglingSymlink { .. })), "{}", path.display());
        }
        let path = temporary.path().join("out");
        std::fs::create_dir_all(path.join("a.txt")).unwrap();
        let refused = take(&path).unwrap_err().to_string();
        assert!(refused.contains("a.txt is a directory"), "{refused}");
    }

    #[test]
    fn a_directory_removed_during_the_run_is_recreated_for_the_results() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("out");
        let directory = take(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        directory.publish(&[("a.txt", b"kept".to_vec())], &[]).unwrap();
        drop(directory);
        assert_eq!(std::fs::read_to_string(path.join("a.txt")).unwrap(), "kept");
    }

    #[test]
    fn a_run_that_lost_its_directory_writes_no_results() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("out");
        let first = take(&path).unwrap();
        std::fs::remove_file(path.join(crate::lock::LOCK)).unwrap();
        let second = take(&path).unwrap();
        assert!(matches!(first.publish(&[("a.txt", vec![])], &[]), Err(StoreError::Lost { .. })));
        second.publish(&[("a.txt", vec![1])], &[]).unwrap();
    }
}
