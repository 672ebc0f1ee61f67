//! The record of an unfinished run: its finished passes, one line each.
//!
//! Every line carries the identity of its run and a checksum over both, so that a line of another
//! run, a damaged line and a line that was cut off by a kill are all found. Passes without a valid
//! line are recomputed. Numbers are stored bit for bit.

use crate::results::TEMPORARY;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::checksum::checksum;
use crate::directory::OutputDirectory;
use crate::error::StoreError;
use crate::line::{Key, checked, pass_line, read, split_sum, with_sum};
use crate::lock::is_at;

/// Name of the record in an output directory.
pub const RECORD: &str = "unfinished.jsonl";

/// Longest first line in bytes. The first line of a real record is far shorter.
const LONGEST_HEADER: u64 = 1 << 20;

/// The record of a run in its output directory. The file exists from the first stored pass until
/// [`remove`](Self::remove).
#[derive(Debug)]
pub struct Record<'d> {
    directory: &'d OutputDirectory,
    path: PathBuf,
    header: String,
    run: String,
    /// Offset in `read` and length, both in bytes, of each pass that an earlier run finished.
    kept: HashMap<Key, (u64, usize)>,
    read: Option<Mutex<File>>,
    append: Mutex<Option<File>>,
    notices: Vec<String>,
}

/// The valid lines of a record, and the line numbers of the damaged ones, counted from 1.
#[derive(Default)]
struct Scan {
    header: String,
    kept: HashMap<Key, (u64, usize)>,
    damaged: Vec<usize>,
    is_cut: bool,
}

impl<'d> Record<'d> {
    /// Opens the record of the run that `identity` describes, or starts a new record.
    ///
    /// `identity` is a JSON object with everything that the numbers depend on.
    ///
    /// # Errors
    /// [`StoreError::OtherRun`] if the directory holds the record of a run with another identity,
    /// [`StoreError::NotOurs`] if the file with the record's name is not a record,
    /// [`StoreError::Read`] if it cannot be read, and [`StoreError::Write`] if a damaged record
    /// cannot be rewritten.
    pub fn open(directory: &'d OutputDirectory, identity: &Value) -> Result<Self, StoreError> {
        let path = directory.path().join(RECORD);
        let run = checksum(&[&identity.to_string()]);
        let text = json!({ "rewire": "unfinished run", "run": run, "identity": identity }).to_string();
        let header = with_sum(&text, &run);
        let mut record = Record {
            directory,
            path,
            header,
            run,
            kept: HashMap::new(),
            read: None,
            append: Mutex::new(None),
            notices: Vec::new(),
        };
        match std::fs::symlink_metadata(&record.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(record),
            Err(e) => return Err(record.unreadable(e)),
            Ok(found) if !found.is_file() => return Err(record.not_ours("it is not a regular file")),
            Ok(_) => {}
        }
        let mut scan = record.scan()?;
        record.check_header(&scan, identity)?;
        if scan.header != record.header {
            scan.damaged.insert(0, 1);
        }
        if scan.is_cut || !scan.damaged.is_empty() {
            record.note(&scan.damaged);
            record.rewrite(&scan)?;
            scan = record.scan()?;
        }
        record.kept = scan.kept;
        record.read = Some(Mutex::new(File::open(&record.path).map_err(|e| record.unreadable(e))?));
        Ok(record)
    }

    /// Returns the number of passes that earlier runs of the same command finished.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.kept.len()
    }

    /// Returns whether an earlier run of the same command finished a pass.
    #[must_use]
    pub fn has(&self, key: Key) -> bool {
        self.kept.contains_key(&key)
    }

    /// Returns one sentence that names the damaged lines, if there are any.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Returns the numbers of a pass that an earlier run finished, or `None`.
    ///
    /// # Errors
    /// [`StoreError::Read`] if the record cannot be read.
    pub fn load(&self, key: Key) -> Result<Option<Vec<f32>>, StoreError> {
        let (Some(&(offset, length)), Some(file)) = (self.kept.get(&key), &self.read) else { return Ok(None) };
        let mut line = vec![0; length];
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut line)).map_err(|e| self.unreadable(e))?;
        let found = checked(&line, &self.run).and_then(|(text, _)| read(text));
        Ok(found.filter(|(found, _)| *found == key).map(|(_, numbers)| numbers))
    }

    /// Appends the numbers of a finished pass.
    ///
    /// Makes a new record if somebody removed the file in the meantime.
    ///
    /// # Errors
    /// [`StoreError::Write`] if the record cannot be written, or [`StoreError::Lost`] if another
    /// run took the directory over.
    pub fn store(&self, key: Key, numbers: &[f32]) -> Result<(), StoreError> {
        self.directory.check_held()?;
        let line = pass_line(&self.run, key, numbers);
        let mut append = self.append.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match append.take() {
            Some(file) if is_at(&self.path, &file) => file,
            Some(_) if self.path.exists() => return Err(StoreError::Lost { path: self.directory.path().into() }),
            _ => self.make().map_err(|e| self.unwritable(e))?,
        };
        append.insert(file).write_all(line.as_bytes()).map_err(|e| self.unwritable(e))
    }

    /// Removes the record, if it exists. Call this once the results are written, or if they never
    /// will be.
    ///
    /// # Errors
    /// [`StoreError::Write`] if the file cannot be removed.
    pub fn remove(self) -> Result<(), StoreError> {
        let append = self.append.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read.as_ref().map(|file| file.lock().unwrap_or_else(PoisonError::into_inner));
        let is_ours = [append.as_ref(), read.as_deref()].into_iter().flatten().any(|file| is_at(&self.path, file));
        if is_ours {
            std::fs::remove_file(&self.path).map_err(|e| self.unwritable(e))?;
        }
        Ok(())
    }

    /// Opens the file for appending. Makes the file if it does not exist.
    fn make(&self) -> io::Result<File> {
        match OpenOptions::new().append(true).open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        std::fs::create_dir_all(self.directory.path())?;
        let mut file = self.temporary()?;
        file.write_all(self.header.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&self.path)?;
        OpenOptions::new().append(true).open(&self.path)
    }

    fn temporary(&self) -> io::Result<tempfile::NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        // By default, only the owner can read a temporary file. Everyone who may read the directory
        // may also read the record.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(self.directory.path())
    }

    /// Reads all lines and checks each one.
    fn scan(&self) -> Result<Scan, StoreError> {
        let mut reader = BufReader::new(File::open(&self.path).map_err(|e| self.unreadable(e))?);
        let mut scan = Scan::default();
        let mut header = Vec::new();
        let mut offset = reader.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut header);
        scan.header = String::from_utf8_lossy(&header).into_owned();
        // Line number and checksum of each pass. Equal checksums mean equal numbers.
        let mut lines: HashMap<Key, (usize, String)> = HashMap::new();
        let mut at = 0;
        for number in 2.. {
            at += offset.map_err(|e| self.unreadable(e))? as u64;
            let mut line = Vec::new();
            offset = reader.read_until(b'\n', &mut line);
            if line.is_empty() {
                break;
            }
            scan.is_cut |= !line.ends_with(b"\n");
            let Some((key, sum)) = checked(&line, &self.run).and_then(|(text, sum)| Some((read(text)?.0, sum))) else {
                // A last line that a kill cut off is not damage.
                if line.ends_with(b"\n") {
                    scan.damaged.push(number);
                }
                continue;
            };
            match lines.get(&key) {
                Some((_, other)) if other == sum => {}
                Some((other, _)) => {
                    scan.damaged.extend([*other, number]);
                    scan.kept.remove(&key);
                }
                None => {
                    scan.kept.insert(key, (at, line.len()));
                    lines.insert(key, (number, sum.to_owned()));
                }
            }
        }
        Ok(scan)
    }

    /// Refuses a file that is not a record, and the record of another run.
    fn check_header(&self, scan: &Scan, identity: &Value) -> Result<(), StoreError> {
        if scan.header == self.header || !scan.kept.is_empty() {
            return Ok(());
        }
        let found = split_sum(&scan.header).and_then(|(text, sum)| {
            let found: Value = serde_json::from_str(&format!("{text}}}")).ok()?;
            let run = found.get("run")?.as_str()?;
            (checksum(&[run, text]) == sum).then(|| found["identity"].clone())
        });
        let Some(found) = found else {
            return Err(self.not_ours("its first line does not describe an unfinished run"));
        };
        let settings = identity.as_object().into_iter().flatten();
        let differs: Vec<&str> = settings.filter(|(k, v)| found.get(*k) != Some(v)).map(|(k, _)| k.as_str()).collect();
        Err(StoreError::OtherRun {
            directory: self.directory.path().into(),
            differs: if differs.is_empty() { "version".to_owned() } else { differs.join(", ") },
            record: self.path.clone(),
        })
    }

    fn note(&mut self, damaged: &[usize]) {
        if !damaged.is_empty() {
            let named: Vec<String> = damaged.iter().take(5).map(usize::to_string).collect();
            let more = if damaged.len() > named.len() { ", .." } else { "" };
            self.notices.push(format!(
                "{}: {} damaged line{} (line {}{more}), whose passes are computed again",
                self.path.display(),
                damaged.len(),
                if damaged.len() == 1 { "" } else { "s" },
                named.join(", ")
            ));
        }
    }

    /// Replaces the file by one with only the valid lines.
    fn rewrite(&self, scan: &Scan) -> Result<(), StoreError> {
        let write = || -> io::Result<()> {
            let mut from = File::open(&self.path)?;
            let mut to = self.temporary()?;
            to.write_all(self.header.as_bytes())?;
            let mut places: Vec<_> = scan.kept.values().copied().collect();
            places.sort_unstable();
            for (offset, length) in places {
                from.seek(SeekFrom::Start(offset))?;
                let mut line = vec![0; length];
                from.read_exact(&mut line)?;
                if !line.ends_with(b"\n") {
                    line.push(b'\n');
                }
                to.write_all(&line)?;
            }
            to.as_file().sync_all()?;
            to.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|e| self.unwritable(e))
    }

    fn not_ours(&self, reason: &str) -> StoreError {
        StoreError::NotOurs { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn unreadable(&self, source: io::Error) -> StoreError {
        StoreError::Read { path: self.path.clone(), source }
    }

    fn unwritable(&self, source: io::Error) -> StoreError {
        StoreError::Write { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests;
