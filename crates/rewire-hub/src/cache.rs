//! The cache of one repository, laid out as `huggingface_hub` has it:
//!
//! ```text
//! CACHE/models--OWNER--NAME/blobs/ETAG            the content; ETAG.incomplete in downloads
//!                          /refs/REVISION         the commit that the revision names
//!                          /snapshots/COMMIT/FILE a relative symbolic link to the blob
//!                          /.no_exist/COMMIT/FILE the commit has no such file
//! CACHE/.locks/models--OWNER--NAME/ETAG.lock
//! ```
//!
//! Every folder on the way to an entry must be a real folder, so nothing outside the cache is read
//! or written.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::content;
use crate::error::HubErrorKind;
use crate::names::{CommitHash, Etag, FileName, RepoId, Revision};

type Result<T> = std::result::Result<T, HubErrorKind>;

/// The cached files of one repository.
#[derive(Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    folder: String,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repository: &RepoId) -> Self {
        Self { root: cache.to_owned(), folder: repository.folder() }
    }

    /// Returns the commit that the cache holds for a revision.
    pub(crate) fn commit_of(&self, revision: &Revision) -> Result<Option<CommitHash>> {
        if let Some(commit) = revision.as_commit() {
            return Ok(Some(commit));
        }
        let path = self.reference(revision);
        let Some(entry) = self.entry(&path)? else { return Ok(None) };
        if !entry.is_file() {
            return Ok(None);
        }
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(64).read_to_end(&mut text));
        read.map_err(HubErrorKind::io(&path))?;
        Ok(std::str::from_utf8(&text).ok().and_then(|text| CommitHash::parse(text.trim()).ok()))
    }

    /// Returns the path of the file that holds a revision's commit.
    pub(crate) fn reference(&self, revision: &Revision) -> PathBuf {
        self.within("refs", revision.as_str())
    }

    /// Writes the commit of a revision.
    pub(crate) fn write_reference(&self, revision: &Revision, commit: &CommitHash) -> Result<()> {
        if revision.as_commit().is_some() {
            return Ok(());
        }
        let path = self.reference(revision);
        self.make_folder_of(&path)?;
        let written = beside(&path);
        fs::write(&written, commit.as_str()).map_err(HubErrorKind::io(&written))?;
        fs::rename(&written, &path).map_err(HubErrorKind::io(&path))
    }

    /// Returns the path of a commit's file, if it is cached.
    ///
    /// # Errors
    /// [`HubErrorKind::Damaged`] if the file fails [`content::check_cached`].
    pub(crate) fn file(&self, commit: &CommitHash, name: &FileName) -> Result<Option<PathBuf>> {
        let path = self.snapshot(commit, name);
        let Some(entry) = self.entry(&path)? else { return Ok(None) };
        let damaged = |path: &Path, reason: &str| HubErrorKind::Damaged { path: path.into(), reason: reason.into() };
        let (target, etag) = if entry.is_symlink() {
            let Ok(target) = fs::canonicalize(&path) else { return Ok(None) };
            let root = fs::canonicalize(&self.root).map_err(HubErrorKind::io(&self.root))?;
            if !target.starts_with(&root) {
                return Err(damaged(&path, "it is a symbolic link that leaves the cache"));
            }
            let blobs = root.join(&self.folder).join("blobs");
            let blob = target.file_name().filter(|_| target.parent() == Some(&blobs)).and_then(|name| name.to_str());
            let etag = blob.and_then(|blob| Etag::parse(blob).ok());
            (target, etag)
        } else {
            (path.clone(), None)
        };
        if !target.metadata().is_ok_and(|entry| entry.is_file()) {
            return Err(damaged(&target, "it is not a file"));
        }
        match content::check_cached(&target, name, etag.as_ref()).map_err(HubErrorKind::io(&target))? {
            Ok(()) => Ok(Some(path)),
            Err(fault) => Err(damaged(&target, &fault)),
        }
    }

    /// Returns whether the blob exists and passes its checks.
    pub(crate) fn has_blob(&self, etag: &Etag, name: &FileName, size: u64) -> Result<bool> {
        let path = self.blob(etag);
        match self.entry(&path)? {
            Some(entry) if entry.is_file() && entry.len() == size => {
                Ok(content::check_cached(&path, name, Some(etag)).map_err(HubErrorKind::io(&path))?.is_ok())
            }
            _ => Ok(false),
        }
    }

    pub(crate) fn blob(&self, etag: &Etag) -> PathBuf {
        self.within("blobs", etag.as_str())
    }

    /// Returns the path of an unfinished download. Makes its folder, and removes anything but a
    /// regular file at the path.
    pub(crate) fn incomplete(&self, etag: &Etag) -> Result<PathBuf> {
        let path = self.within("blobs", &format!("{}.incomplete", etag.as_str()));
        self.make_folder_of(&path)?;
        match self.entry(&path)? {
            Some(entry) if !entry.is_file() => remove(&path, &entry).map_err(HubErrorKind::io(&path))?,
            _ => {}
        }
        Ok(path)
    }

    /// Returns the path of the lock file for this content.
    pub(crate) fn lock(&self, etag: &Etag) -> Result<PathBuf> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{}.lock", etag.as_str()));
        self.make_folder_of(&path)?;
        match self.entry(&path)? {
            Some(entry) if !entry.is_file() => Err(HubErrorKind::CacheEntry { path, found: "not a regular file" }),
            _ => Ok(path),
        }
    }

    /// Renames a finished download to its blob.
    pub(crate) fn keep(&self, incomplete: &Path, etag: &Etag) -> Result<()> {
        let path = self.blob(etag);
        match self.entry(&path)? {
            Some(entry) if entry.is_dir() => Err(HubErrorKind::CacheEntry { path, found: "a folder" }),
            _ => fs::rename(incomplete, &path).map_err(HubErrorKind::io(&path)),
        }
    }

    /// Links a commit's file to its blob, and replaces an earlier file or link.
    pub(crate) fn link(&self, commit: &CommitHash, name: &FileName, etag: &Etag) -> Result<PathBuf> {
        let path = self.snapshot(commit, name);
        self.make_folder_of(&path)?;
        let depth = 2 + name.as_str().matches('/').count();
        let target = Path::new(&"../".repeat(depth)).join("blobs").join(etag.as_str());
        let written = beside(&path);
        let _ = fs::remove_file(&written);
        if symlink(&target, &written).is_err() {
            fs::copy(self.blob(etag), &written).map_err(HubErrorKind::io(&written))?;
        }
        match self.entry(&path)? {
            Some(entry) if entry.is_dir() => Err(HubErrorKind::CacheEntry { path, found: "a folder" }),
            _ => fs::rename(&written, &path).map_err(HubErrorKind::io(&path)).map(|()| path),
        }
    }

    /// Returns the path of the marker that a commit lacks a file, if the marker exists.
    pub(crate) fn absence(&self, commit: &CommitHash, name: &FileName) -> Result<Option<PathBuf>> {
        let path = self.within(".no_exist", commit.as_str()).join(name.as_str());
        Ok(self.entry(&path)?.filter(Metadata::is_file).map(|_| path))
    }

    /// Writes the marker that a commit lacks a file.
    pub(crate) fn mark_absence(&self, commit: &CommitHash, name: &FileName) -> Result<()> {
        let path = self.within(".no_exist", commit.as_str()).join(name.as_str());
        self.make_folder_of(&path)?;
        match File::options().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(b"")) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => Err(HubErrorKind::io(&path)(fault)),
            _ => Ok(()),
        }
    }

    fn snapshot(&self, commit: &CommitHash, name: &FileName) -> PathBuf {
        self.within("snapshots", commit.as_str()).join(name.as_str())
    }

    fn within(&self, kind: &str, name: &str) -> PathBuf {
        self.root.join(&self.folder).join(kind).join(name)
    }

    /// Returns the metadata of a cache path without following links, or `None` if nothing exists
    /// there.
    ///
    /// # Errors
    /// [`HubErrorKind::CacheEntry`] if a folder on the way is a symbolic link.
    fn entry(&self, path: &Path) -> Result<Option<Metadata>> {
        for folder in self.folders_to(path) {
            match folder_state(&folder)? {
                FolderState::Real => {}
                FolderState::Missing => return Ok(None),
                FolderState::Other(found) => return Err(HubErrorKind::CacheEntry { path: folder, found }),
            }
        }
        found(fs::symlink_metadata(path)).map_err(HubErrorKind::io(path))
    }

    /// Makes the missing folders between the root and a path.
    fn make_folder_of(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(&self.root).map_err(HubErrorKind::io(&self.root))?;
        for folder in self.folders_to(path) {
            match folder_state(&folder)? {
                FolderState::Real => {}
                FolderState::Other(found) => return Err(HubErrorKind::CacheEntry { path: folder, found }),
                FolderState::Missing => match fs::create_dir(&folder) {
                    Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(HubErrorKind::io(&folder)(fault));
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// Returns the folders between the root and a path, outermost first.
    fn folders_to(&self, path: &Path) -> Vec<PathBuf> {
        let inside = path.ancestors().skip(1).take_while(|folder| *folder != self.root);
        let mut folders: Vec<_> = inside.map(Path::to_owned).collect();
        folders.reverse();
        folders
    }
}

enum FolderState {
    Real,
    Missing,
    Other(&'static str),
}

fn folder_state(folder: &Path) -> Result<FolderState> {
    Ok(match found(fs::symlink_metadata(folder)).map_err(HubErrorKind::io(folder))? {
        None => FolderState::Missing,
        Some(entry) if entry.is_dir() => FolderState::Real,
        Some(entry) if entry.is_symlink() => FolderState::Other("a symbolic link instead of a folder"),
        Some(_) => FolderState::Other("not a folder"),
    })
}

/// Returns `None` for an entry that does not exist.
fn found(entry: io::Result<Metadata>) -> io::Result<Option<Metadata>> {
    match entry {
        Ok(entry) => Ok(Some(entry)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Returns a temporary path in the same folder. The name is unique to this thread.
fn beside(path: &Path) -> PathBuf {
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(50).collect();
    let thread: String = format!("{:?}", std::thread::current().id()).chars().filter(char::is_ascii_digit).collect();
    path.with_file_name(format!(".{name}.{}.{thread}.new", std::process::id()))
}

fn remove(path: &Path, entry: &Metadata) -> io::Result<()> {
    if entry.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
