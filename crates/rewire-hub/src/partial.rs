//! An unfinished download with its running hash.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::content::Hasher;
use crate::error::HubErrorKind;
use crate::metadata::FileMetadata;

/// An unfinished download.
pub(crate) struct Partial<'a> {
    path: PathBuf,
    file: File,
    received: u64,
    hasher: Option<Hasher>,
    expected: &'a FileMetadata,
}

impl<'a> Partial<'a> {
    /// Continues an earlier download. Starts from zero if the ETag is no hash, because then nothing
    /// verifies the earlier bytes.
    pub(crate) fn open(path: PathBuf, expected: &'a FileMetadata) -> Result<Self, HubErrorKind> {
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.map_err(HubErrorKind::io(&path))?;
        let mut partial = Self { path, file, received: 0, hasher: Hasher::of(&expected.etag, expected.size), expected };
        let present = partial.file.metadata().map_err(HubErrorKind::io(&partial.path))?.len();
        match &partial.hasher {
            Some(_) if present <= expected.size => partial.hash_present()?,
            _ => partial.restart()?,
        }
        Ok(partial)
    }

    fn hash_present(&mut self) -> Result<(), HubErrorKind> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = self.file.read(&mut buffer).map_err(HubErrorKind::io(&self.path))?;
            if read == 0 {
                return Ok(());
            }
            self.count(&buffer[..read]);
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of missing bytes.
    pub(crate) fn missing(&self) -> u64 {
        self.expected.size.saturating_sub(self.received)
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), HubErrorKind> {
        self.file.write_all(bytes).map_err(HubErrorKind::io(&self.path))?;
        self.count(bytes);
        Ok(())
    }

    /// Discards the received bytes.
    pub(crate) fn restart(&mut self) -> Result<(), HubErrorKind> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(HubErrorKind::io(&self.path))?;
        self.received = 0;
        self.hasher = Hasher::of(&self.expected.etag, self.expected.size);
        Ok(())
    }

    /// Compares the whole file's hash with its ETag. The inner error describes the fault.
    pub(crate) fn check(&mut self) -> Result<Result<(), String>, HubErrorKind> {
        self.file.sync_all().map_err(HubErrorKind::io(&self.path))?;
        let hasher = self.hasher.take();
        Ok(hasher.map_or(Ok(()), |hasher| hasher.check(&self.expected.etag)))
    }
}
