//! The lock that keeps two processes from downloading the same content, `huggingface_hub` included.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::HubErrorKind;
use crate::progress::Bar;

/// Interval between attempts to take a lock that another process holds.
const POLL: Duration = Duration::from_millis(100);

/// A lock, held until this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Locks a file. Waits for at most `limit` if another process holds the lock.
    pub(crate) fn take(path: &Path, limit: Duration, bar: &Bar) -> Result<Self, HubErrorKind> {
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = opened.map_err(HubErrorKind::io(path))?;
        let start = Instant::now();
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                // Some file systems have no locks. Renames still keep the cache whole; a file may
                // be downloaded twice.
                Err(TryLockError::Error(fault)) if fault.kind() == std::io::ErrorKind::Unsupported => {
                    return Ok(Self(file));
                }
                Err(TryLockError::Error(fault)) => return Err(HubErrorKind::io(path)(fault)),
                Err(TryLockError::WouldBlock) if start.elapsed() >= limit => {
                    return Err(HubErrorKind::Locked { path: path.into(), waited: limit });
                }
                Err(TryLockError::WouldBlock) => {
                    if !said {
                        bar.say(&format!("waiting for another process that downloads the file ({})", path.display()));
                        said = true;
                    }
                    std::thread::sleep(POLL);
                }
            }
        }
    }
}
