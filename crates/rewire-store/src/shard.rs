//! One shard of a run: the passes that one process of several computes, in a file of its own.
//!
//! No process locks the output directory, so a node that vanishes holds nothing. Each process
//! appends to a file of its own with a name that no other process has, and renames the file once
//! all its passes are finished. A process that computes the same shard again copies the finished
//! passes of dead processes first. Two processes that compute the same shard at once write the same
//! passes, and the file of either is complete.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::directory::check_place;
use crate::error::StoreError;
use crate::line::{Key, checked, pass_line, read};
use crate::shard_file::{Contents, PARTIAL, SHARDS, ShardHeader, files, header, last_line, scan};

/// An unfinished file that did not change for this long belongs to a dead process. The files of
/// living processes are never removed before: a pass rarely takes longer.
const SILENCE: Duration = Duration::from_secs(600);

/// What to do with shards of another run in the output directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherShards {
    /// Return [`StoreError::OtherShards`].
    Refuse,
    /// Remove them.
    Remove,
}

/// A shard in an output directory.
#[derive(Debug)]
pub enum OpenedShard {
    /// An earlier process finished the shard.
    Finished,
    /// The shard is to be computed.
    Unfinished(Shard),
}

/// An unfinished shard that this process computes.
#[derive(Debug)]
pub struct Shard {
    finished: PathBuf,
    partial: PathBuf,
    run: String,
    /// Offset and length, both in bytes, of the passes that earlier processes finished.
    kept: HashMap<Key, (u64, usize)>,
    read: Mutex<File>,
    append: Mutex<Appended>,
}

/// The file that passes are appended to, and their number.
#[derive(Debug)]
struct Appended {
    file: File,
    passes: usize,
}

impl Shard {
    /// Opens a shard in the output directory `out`, which is made if it is absent.
    ///
    /// # Errors
    /// [`StoreError`] if the directory cannot be written to, or if it holds shards of another run
    /// and these are not to be removed.
    pub fn open(out: &Path, shard: &ShardHeader, others: OtherShards) -> Result<OpenedShard, StoreError> {
        check_place(out)?;
        let folder = out.join(SHARDS);
        std::fs::create_dir_all(&folder).map_err(|source| StoreError::Directory { path: folder.clone(), source })?;
        let run = shard.run();
        let mut own = Vec::new();
        for path in files(out)? {
            match header(&path) {
                // Another process may have finished or removed the file in the meantime.
                Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                found => match found? {
                    Some((found, of)) if of == run && found.number == shard.number => own.push(path),
                    Some((_, of)) if of == run => {}
                    // A process that was killed at once left an empty file.
                    None if path.to_string_lossy().ends_with(PARTIAL) => {}
                    _ if others == OtherShards::Remove => remove(&path)?,
                    Some((found, _)) => {
                        let differs = shard.differences(&found);
                        return Err(StoreError::OtherShards { path, command: found.command.join(" "), differs });
                    }
                    None => {
                        let reason = "its first line does not describe a shard".to_owned();
                        return Err(StoreError::NotOurs { path, reason });
                    }
                },
            }
        }
        let finished = shard.path(out);
        let mut contents = Vec::new();
        for path in own {
            if let Some(found) = scan(&path)? {
                if path == finished && found.plans.is_some() {
                    return Ok(OpenedShard::Finished);
                }
                contents.push((path, found));
            }
        }
        Self::begin(shard, &folder, finished, contents).map(OpenedShard::Unfinished)
    }

    /// Makes the file of this process, with the finished passes of earlier ones.
    fn begin(
        shard: &ShardHeader,
        folder: &Path,
        finished: PathBuf,
        earlier: Vec<(PathBuf, Contents)>,
    ) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Write { path: folder.into(), source };
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{}.", shard.stem());
        builder.prefix(&prefix).suffix(PARTIAL);
        // By default, only the owner can read a temporary file. Everyone who may read the directory
        // may also read the shard.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let (mut file, partial) = builder.tempfile_in(folder).and_then(|file| Ok(file.keep()?)).map_err(failed)?;
        let failed = |source| StoreError::Write { path: partial.clone(), source };
        file.write_all(shard.line().as_bytes()).map_err(failed)?;
        let mut kept: HashMap<Key, (u64, usize)> = HashMap::new();
        let mut at = shard.line().len() as u64;
        let now = file.metadata().and_then(|found| found.modified()).map_err(failed)?;
        let mut dead = Vec::new();
        for (path, contents) in earlier {
            let unreadable = |source| StoreError::Read { path: path.clone(), source };
            let mut from = File::open(&path).map_err(unreadable)?;
            let changed = from.metadata().and_then(|found| found.modified()).map_err(unreadable)?;
            let mut places: Vec<_> = contents.kept.into_iter().filter(|(key, _)| !kept.contains_key(key)).collect();
            places.sort_unstable_by_key(|(_, place)| *place);
            for (key, place) in places {
                let mut line = line_at(&mut from, place).map_err(unreadable)?;
                if !line.ends_with(b"\n") {
                    line.push(b'\n');
                }
                file.write_all(&line).map_err(failed)?;
                kept.insert(key, (at, line.len()));
                at += line.len() as u64;
            }
            if path != finished && now.duration_since(changed).is_ok_and(|silence| silence > SILENCE) {
                dead.push(path);
            }
        }
        file.sync_all().map_err(failed)?;
        dead.iter().try_for_each(|path| remove(path))?;
        let read = File::open(&partial).map_err(failed)?;
        let file = OpenOptions::new().append(true).open(&partial).map_err(failed)?;
        let append = Mutex::new(Appended { file, passes: kept.len() });
        Ok(Self { finished, run: shard.run(), kept, read: Mutex::new(read), append, partial })
    }

    /// Returns the number of passes that earlier processes finished.
    #[must_use]
    pub fn finished_before(&self) -> usize {
        self.kept.len()
    }

    /// Returns whether an earlier process finished a pass.
    #[must_use]
    pub fn has(&self, key: Key) -> bool {
        self.kept.contains_key(&key)
    }

    /// Returns the numbers of a pass that an earlier process finished, or `None`.
    ///
    /// # Errors
    /// [`StoreError::Read`] if the file cannot be read.
    pub fn load(&self, key: Key) -> Result<Option<Vec<f32>>, StoreError> {
        let Some(place) = self.kept.get(&key) else { return Ok(None) };
        let mut file = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let line =
            line_at(&mut file, *place).map_err(|source| StoreError::Read { path: self.partial.clone(), source })?;
        Ok(numbers(&line, &self.run, key))
    }

    /// Appends the numbers of a finished pass.
    ///
    /// # Errors
    /// [`StoreError::Write`] if the file cannot be written.
    pub fn store(&self, key: Key, numbers: &[f32]) -> Result<(), StoreError> {
        let line = pass_line(&self.run, key, numbers);
        let mut append = self.append.lock().unwrap_or_else(PoisonError::into_inner);
        append.file.write_all(line.as_bytes()).map_err(|e| self.unwritable(e))?;
        append.passes += 1;
        Ok(())
    }

    /// Finishes the shard: its file gets the name of a finished shard. `plans` are hashes of the
    /// lists of passes that the run planned, equal in all shards.
    ///
    /// # Errors
    /// [`StoreError::Write`] if the file cannot be written or renamed.
    pub fn finish(self, plans: &[String]) -> Result<(), StoreError> {
        let mut append = self.append.lock().unwrap_or_else(PoisonError::into_inner);
        let line = last_line(&self.run, append.passes, plans);
        append.file.write_all(line.as_bytes()).map_err(|e| self.unwritable(e))?;
        append.file.sync_all().map_err(|e| self.unwritable(e))?;
        match std::fs::rename(&self.partial, &self.finished) {
            // Another process that computed the same shard found this one silent, and finished.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.finished.exists() => {}
            renamed => renamed.map_err(|e| self.unwritable(e))?,
        }
        // The other files of this shard are no longer needed. A failure costs only their space.
        if let (Some(folder), Some(name)) = (self.finished.parent(), self.finished.file_stem()) {
            let prefix = format!(".{}.", name.to_string_lossy());
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let others = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
            others.for_each(|entry| drop(std::fs::remove_file(entry.path())));
            // Not every file system can sync a directory.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }

    fn unwritable(&self, source: io::Error) -> StoreError {
        StoreError::Write { path: self.partial.clone(), source }
    }
}

/// Reads the line at an offset and of a length, both in bytes.
pub(crate) fn line_at(file: &mut File, (offset, length): (u64, usize)) -> io::Result<Vec<u8>> {
    let mut line = vec![0; length];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut line)?;
    Ok(line)
}

/// Returns the numbers in a line of a run, if the line is valid and of this pass.
pub(crate) fn numbers(line: &[u8], run: &str, key: Key) -> Option<Vec<f32>> {
    let found = checked(line, run).and_then(|(text, _)| read(text));
    found.filter(|(found, _)| *found == key).map(|(_, numbers)| numbers)
}

/// Removes a file, if it exists.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::Write { path: path.into(), source: e }),
        _ => Ok(()),
    }
}
