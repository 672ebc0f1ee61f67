//! Number of retries, and the waits between them.

use std::time::Duration;

use crate::config::Limits;
use crate::error::HubErrorKind;
use crate::progress::Bar;

/// Counts the failed attempts of one file.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    limits: &'a Limits,
    bar: &'a Bar,
    failed: u32,
    furthest: u64,
}

impl<'a> Attempts<'a> {
    /// Starts counting. `start` is the number of bytes before the first attempt.
    pub(crate) fn new(limits: &'a Limits, bar: &'a Bar, start: u64) -> Self {
        Self { limits, bar, failed: 0, furthest: start }
    }

    /// Waits after an attempt that failed with `received` bytes in the file.
    ///
    /// # Errors
    /// Returns the failure if it is not transient, or if no retry is left.
    pub(crate) fn wait_after(&mut self, failure: HubErrorKind, received: u64) -> Result<(), HubErrorKind> {
        if !failure.is_transient() {
            return Err(failure);
        }
        // The furthest byte never goes back, so a server cannot earn retries twice for the same
        // bytes.
        if received >= self.furthest.saturating_add(self.limits.progress) {
            self.furthest = received;
            self.failed = 0;
        }
        if self.failed >= self.limits.retries {
            return Err(failure);
        }
        let wait = self.wait(&failure)?;
        self.failed += 1;
        let (failed, retries) = (self.failed, self.limits.retries);
        let again = format!("trying again in {:.1} s ({failed} of {retries})", wait.as_secs_f64());
        self.bar.say(&format!("{}; {again}", failure.cause()));
        std::thread::sleep(wait);
        Ok(())
    }

    fn wait(&self, failure: &HubErrorKind) -> Result<Duration, HubErrorKind> {
        match failure {
            HubErrorKind::Status { host, status, retry_after: Some(wait) } if *wait > self.limits.retry_after => {
                Err(HubErrorKind::RateLimited { host: host.clone(), status: *status, wait: *wait })
            }
            HubErrorKind::Status { retry_after: Some(wait), .. } => Ok(*wait),
            _ => Ok(self.limits.backoff.saturating_mul(1 << self.failed.min(10))),
        }
    }
}
