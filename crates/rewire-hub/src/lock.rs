//! The lock that keeps two processes from downloading the same content, `huggingface_hub` included.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::HubErrorKind;
use crate::progress::Bar;

/// How often a lock that another process holds is tried.
const POLL: Duration = Duration::from_millis(100);

/// A held lock; it ends when this is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Takes the lock of a file, and waits for another process for `limit` at most.
    pub(crate) fn take(path: &Path, limit: Duration, bar: &Bar) -> Result<Self, HubErrorKind> {
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = opened.map_err(HubErrorKind::io(path))?;
        let start = Instant::now();
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                // A file system without locks: renames keep the cache whole, only a download may happen twice.
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
