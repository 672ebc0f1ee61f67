//! Files that appear whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::ReportError;

/// Finds out, before any long work is begun, whether files can be written to a directory that may yet have to be made.
/// Leaves nothing behind.
///
/// # Errors
/// [`ReportError::Directory`].
pub fn check_directory(directory: &Path) -> Result<(), ReportError> {
    let refused = |source| ReportError::Directory { path: directory.into(), source };
    let absolute = std::path::absolute(directory).map_err(refused)?;
    let existing = absolute.ancestors().find(|a| a.exists()).unwrap_or(Path::new("/"));
    tempfile::NamedTempFile::new_in(existing).map_err(refused)?.close().map_err(refused)
}

/// Makes the directory if need be.
pub(crate) fn make_directory(directory: &Path) -> Result<(), ReportError> {
    std::fs::create_dir_all(directory).map_err(|source| ReportError::Directory { path: directory.into(), source })
}

/// Writes a file beside its place and moves it there once it is whole; its directory must be there.
///
/// # Errors
/// [`ReportError::Write`].
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<(), ReportError> {
    let refused = |source| ReportError::Write { path: path.into(), source };
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(refused)?;
    file.write_all(contents).map_err(refused)?;
    // Temporary files are made for their owner alone; results are for everyone that may read the directory.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(readable).map_err(refused)?;
    }
    file.persist(path).map_err(|e| refused(e.error)).map(|_| ())
}
