//! The lock on an output directory: one living process holds it.
//!
//! The lock is the operating system's advisory lock on the file `.rewire.lock`, which ends with its
//! process. The holder also rewrites the file every few seconds. A holder that has not done so for
//! [`SILENCE`] counts as dead, because its node may have crashed while a network file system kept
//! its lock. On file systems without advisory locks, the rewritten file is the only sign of life.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// Name of the lock file.
pub(crate) const LOCK: &str = ".rewire.lock";

/// Time between two rewrites of the lock file by its holder.
const BEAT: Duration = Duration::from_secs(10);

/// Time without a rewrite after which a holder counts as dead.
const SILENCE: Duration = Duration::from_secs(600);

/// The process that holds a lock, as the lock file names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    command: String,
    host: String,
    process: u32,
}

impl Holder {
    fn this_process(command: &str) -> Self {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let command = command.chars().filter(|c| !c.is_control()).take(200).collect();
        Self { command, host, process: std::process::id() }
    }

    /// Returns whether the holder's process has certainly ended. Processes on other hosts are
    /// unknown, and give false.
    fn is_gone(&self) -> bool {
        let here = gethostname::gethostname().to_string_lossy() == self.host.as_str();
        here && Path::new("/proc/self").exists() && !Path::new("/proc").join(self.process.to_string()).exists()
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, process {} on {}", self.command, self.process, self.host)
    }
}

/// A held lock. Dropping it releases the lock and removes its file.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The result of one attempt to take a lock.
#[derive(Debug)]
pub(crate) enum Attempt {
    Taken(Lock),
    /// Another process holds the lock; the text describes it.
    Held(String),
}

impl Lock {
    /// Tries to take the lock of `directory`, which must exist.
    ///
    /// # Errors
    /// [`StoreError::Directory`] if the lock file cannot be written, [`StoreError::NotOurs`] if a
    /// file with its name has other contents.
    pub(crate) fn attempt(directory: &Path, command: &str) -> Result<Attempt, StoreError> {
        let path = directory.join(LOCK);
        let failed = |source| StoreError::Directory { path: directory.into(), source };
        loop {
            check_is_lock(&path)?;
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = options.map_err(failed)?;
            let is_held = match file.try_lock() {
                Ok(()) => false,
                Err(TryLockError::WouldBlock) => true,
                // A file system without advisory locks.
                Err(TryLockError::Error(_)) => holder(&path).is_some_and(|holder| !holder.is_gone()),
            };
            if is_held {
                if silence(directory, &file) < SILENCE {
                    let holder = holder(&path).map_or_else(|| "it is just starting".to_owned(), |h| h.to_string());
                    return Ok(Attempt::Held(holder));
                }
                remove_if_same(&path, &file);
                continue;
            }
            // The former holder removes its file, and a lock on a removed file locks nothing.
            if !is_at(&path, &file) {
                continue;
            }
            let text = serde_json::to_string(&Holder::this_process(command)).map_err(|e| failed(e.into()))?;
            rewrite(&file, &text).map_err(failed)?;
            let beat = Some(start_beat(file.try_clone().map_err(failed)?, text).map_err(failed)?);
            return Ok(Attempt::Taken(Lock { path, file, beat }));
        }
    }

    /// Returns another handle of the lock's file, and its path.
    pub(crate) fn file(&self) -> io::Result<(PathBuf, File)> {
        Ok((self.path.clone(), self.file.try_clone()?))
    }

    /// Returns whether the file at the lock's path is still this lock.
    pub(crate) fn is_held(&self) -> bool {
        is_at(&self.path, &self.file)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.beat.take() {
            drop(stop);
            // The thread only writes, and cannot panic.
            let _ = thread.join();
        }
        remove_if_same(&self.path, &self.file);
        let _ = self.file.unlock();
    }
}

/// Returns whether `directory` has a lock file.
pub(crate) fn exists(directory: &Path) -> bool {
    std::fs::symlink_metadata(directory.join(LOCK)).is_ok()
}

/// Refuses a path with an entry that is not a lock file of rewire.
fn check_is_lock(path: &Path) -> Result<(), StoreError> {
    let other = |reason: &str| Err(StoreError::NotOurs { path: path.into(), reason: reason.to_owned() });
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if !found.is_file() => other("it is not a regular file"),
        Ok(found) if found.len() == 0 || holder(path).is_some() => Ok(()),
        // The holder rewrites the file in place, so a second look is needed before the verdict.
        Ok(_) => {
            std::thread::sleep(Duration::from_millis(50));
            match std::fs::read(path) {
                Ok(text) if !text.is_empty() && serde_json::from_slice::<Holder>(&text).is_err() => {
                    other("it does not name the holder of a lock")
                }
                _ => Ok(()),
            }
        }
    }
}

fn holder(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(path).ok()?.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Overwrites the lock file in place. The text keeps its length, so that readers never see part of
/// it.
fn rewrite(mut file: &File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn start_beat(file: File, text: String) -> io::Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let beat = move || {
        while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            // A full disk must not end the run, and the next rewrite may succeed.
            let _ = rewrite(&file, &text);
        }
    };
    Ok((stop, std::thread::Builder::new().name("rewire lock".to_owned()).spawn(beat)?))
}

/// Returns the time since the holder rewrote its file, by the clock of the file system.
fn silence(directory: &Path, file: &File) -> Duration {
    let now =
        tempfile::Builder::new().prefix(".rewire-clock").tempfile_in(directory).and_then(|f| modified(f.as_file()));
    match (now, modified(file)) {
        (Ok(now), Ok(then)) => now.duration_since(then).unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

fn modified(file: &File) -> io::Result<SystemTime> {
    file.metadata()?.modified()
}

/// Returns whether `path` is this file, and not a newer file with its name.
#[cfg(unix)]
pub(crate) fn is_at(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Returns whether a file exists at `path`. On this system, an open file keeps its name.
#[cfg(not(unix))]
pub(crate) fn is_at(path: &Path, _: &File) -> bool {
    path.exists()
}

/// Removes the file at `path` if it is this file.
pub(crate) fn remove_if_same(path: &Path, file: &File) {
    if is_at(path, file) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(directory: &Path) -> Lock {
        match Lock::attempt(directory, "test").unwrap() {
            Attempt::Taken(lock) => lock,
            Attempt::Held(holder) => panic!("held by {holder}"),
        }
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_ends() {
        let directory = tempfile::tempdir().unwrap();
        let first = take(directory.path());
        let Attempt::Held(holder) = Lock::attempt(directory.path(), "second").unwrap() else { panic!("two hold it") };
        assert!(holder.contains("test, process"), "{holder}");
        drop(first);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        take(directory.path());
    }

    #[test]
    fn a_silent_lock_holder_counts_as_dead_and_is_notified() {
        let directory = tempfile::tempdir().unwrap();
        let first = take(directory.path());
        first.file.set_modified(SystemTime::now() - 2 * SILENCE).unwrap();
        let second = take(directory.path());
        assert!(second.is_held() && !first.is_held());
        drop(first);
        assert!(second.is_held(), "the dead holder removed the lock of the living one");
    }

    #[test]
    fn the_lock_file_of_a_dead_process_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let dead = Holder { process: u32::MAX, ..Holder::this_process("dead") };
        std::fs::write(directory.path().join(LOCK), serde_json::to_string(&dead).unwrap()).unwrap();
        assert!(dead.is_gone() && !Holder::this_process("alive").is_gone());
        take(directory.path());
    }

    #[test]
    fn a_file_of_the_users_with_the_locks_name_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK);
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Lock::attempt(directory.path(), "test"), Err(StoreError::NotOurs { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[cfg(unix)]
    #[test]
    fn a_symlink_with_the_locks_name_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        std::os::unix::fs::symlink(&target, directory.path().join(LOCK)).unwrap();
        assert!(matches!(Lock::attempt(directory.path(), "test"), Err(StoreError::NotOurs { .. })));
        assert!(!target.exists());
    }
}
