//! Downloads a file: continues an earlier download, limits size and time, and checks the content.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use url::Url;

use crate::config::Limits;
use crate::content;
use crate::error::HubErrorKind;
use crate::http::{Answer, Ask, Http, network_error};
use crate::metadata::FileMetadata;
use crate::names::FileName;
use crate::partial::Partial;
use crate::progress::Bar;
use crate::retry::Attempts;
use crate::shown::shown;

type Result<T> = std::result::Result<T, HubErrorKind>;

/// One file to download.
pub(crate) struct Download<'a> {
    pub(crate) http: &'a Http,
    pub(crate) url: &'a Url,
    pub(crate) name: &'a FileName,
    pub(crate) expected: &'a FileMetadata,
    pub(crate) bar: &'a Bar,
}

impl Download<'_> {
    /// Downloads to a path. A file at the path is taken as the beginning of the content.
    ///
    /// # Errors
    /// A broken connection keeps the received bytes. Wrong content is removed.
    pub(crate) fn to(&self, path: PathBuf) -> Result<()> {
        let mut partial = Partial::open(path.clone(), self.expected)?;
        let continued = partial.received() > 0;
        self.complete(&mut partial)?;
        let mut fault = partial.check()?;
        if fault.is_err() && continued {
            self.bar.say(&format!("the earlier part of {} was damaged; downloading it again", self.name.as_str()));
            partial.restart()?;
            self.complete(&mut partial)?;
            fault = partial.check()?;
        }
        drop(partial);
        let fault = match fault {
            Ok(()) => content::check_form(&path, self.name).map_err(HubErrorKind::io(&path))?,
            differs => differs,
        };
        fault.map_err(|reason| self.refuse(&path, reason))
    }

    fn refuse(&self, path: &Path, reason: String) -> HubErrorKind {
        match std::fs::remove_file(path) {
            Ok(()) => HubErrorKind::Content { host: self.http.endpoint_host(), reason },
            Err(fault) => HubErrorKind::io(path)(fault),
        }
    }

    /// Receives the missing bytes, with retries.
    fn complete(&self, partial: &mut Partial<'_>) -> Result<()> {
        self.bar.start(self.expected.size, partial.received());
        let mut attempts = Attempts::new(self.http.limits(), self.bar, partial.received());
        while partial.missing() > 0 {
            if let Err(failure) = self.attempt(partial) {
                attempts.wait_after(failure, partial.received())?;
            }
        }
        Ok(())
    }

    fn attempt(&self, partial: &mut Partial<'_>) -> Result<()> {
        let answer = match self.http.follow(self.url, Ask::ContentFrom(partial.received())) {
            Err(HubErrorKind::Status { status: 416, .. }) if partial.received() > 0 => {
                partial.restart()?;
                self.http.follow(self.url, Ask::ContentFrom(0))?
            }
            other => other?,
        };
        let first = self.first_byte(&answer)?;
        if first == 0 && partial.received() > 0 {
            partial.restart()?;
        }
        if first != partial.received() {
            return Err(answer.wrong(format!("begins at byte {first} instead of {}", partial.received())));
        }
        self.check_headers(&answer, partial.missing())?;
        self.receive(answer, partial)
    }

    /// Returns the offset in the file of the first byte in the answer.
    fn first_byte(&self, answer: &Answer) -> Result<u64> {
        if answer.status() == 200 {
            return Ok(0);
        }
        let range = answer.header("content-range")?.unwrap_or_default();
        let parsed = range.strip_prefix("bytes ").and_then(|range| {
            let (places, total) = range.split_once('/')?;
            let (first, last) = places.split_once('-')?;
            Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total))
        });
        match parsed {
            Some((first, last, total))
                if first <= last
                    && last < self.expected.size
                    && (total == "*" || total == self.expected.size.to_string()) =>
            {
                Ok(first)
            }
            _ => {
                let size = self.expected.size;
                Err(answer.wrong(format!("has the range `{}` of a file of {size} bytes", shown(range))))
            }
        }
    }

    /// Refuses an answer whose headers do not fit the missing bytes, before reading its body.
    fn check_headers(&self, answer: &Answer, missing: u64) -> Result<()> {
        let encoding = answer.header("content-encoding")?.unwrap_or("identity");
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            return Err(answer.wrong(format!("is encoded as `{}`, which was not requested", shown(encoding))));
        }
        let kind = answer.header("content-type")?.unwrap_or_default();
        if kind.starts_with("text/html") && !self.name.has_extension("html") {
            return Err(answer.wrong("is a web page instead of the file".to_owned()));
        }
        match answer.length("content-length")? {
            Some(length) if length > missing || (answer.status() == 200 && length < missing) => {
                Err(answer.wrong(format!("has {length} bytes instead of {missing}")))
            }
            _ => Ok(()),
        }
    }

    fn receive(&self, answer: Answer, partial: &mut Partial<'_>) -> Result<()> {
        let (host, url) = (answer.host(), answer.url);
        let mut body = answer.response.into_body().into_reader();
        let mut rate = Rate::new(self.http.limits());
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Err(fault) if fault.kind() == ErrorKind::UnexpectedEof => 0,
                other => other.map_err(|fault| network_error(&url, &ureq::Error::from(fault)))?,
            };
            if read == 0 && partial.missing() > 0 {
                return Err(HubErrorKind::Ended { host, received: partial.received(), size: self.expected.size });
            }
            if read as u64 > partial.missing() {
                let reason = format!("is longer than the file's {} bytes", self.expected.size);
                return Err(HubErrorKind::Answer { host, reason });
            }
            if read == 0 {
                return Ok(());
            }
            partial.append(&buffer[..read])?;
            self.bar.advance_to(partial.received());
            if let Some(floor) = rate.too_low_after(read as u64) {
                return Err(HubErrorKind::Slow { host, floor });
            }
        }
    }
}

/// Measures the rate of a download over periods.
struct Rate {
    period: Duration,
    floor: u64,
    start: Instant,
    bytes: u64,
}

impl Rate {
    fn new(limits: &Limits) -> Self {
        Self { period: limits.rate_period, floor: limits.rate_floor, start: Instant::now(), bytes: 0 }
    }

    /// Returns the lowest accepted rate if a period has ended with a lower one.
    fn too_low_after(&mut self, bytes: u64) -> Option<u64> {
        self.bytes += bytes;
        let elapsed = self.start.elapsed();
        if elapsed < self.period {
            return None;
        }
        let low = (self.bytes as f64) < self.floor as f64 * elapsed.as_secs_f64();
        (self.start, self.bytes) = (Instant::now(), 0);
        low.then_some(self.floor)
    }
}
