//! The hub's description of a file before the download: commit, ETag and size.

use url::Url;

use crate::error::HubErrorKind;
use crate::http::{Answer, Ask, Http, place};
use crate::names::{CommitHash, Etag};

/// Commit, ETag and size of a file.
#[derive(Debug, Clone)]
pub(crate) struct FileMetadata {
    pub(crate) commit: CommitHash,
    pub(crate) etag: Etag,
    pub(crate) size: u64,
}

/// The first value of each header in the endpoint's answers.
#[derive(Default)]
struct Headers {
    commit: Option<CommitHash>,
    etag: Option<Etag>,
    size: Option<u64>,
}

/// A failed description, with the commit that lacks the file if the hub names it.
pub(crate) struct Refused {
    pub(crate) kind: HubErrorKind,
    pub(crate) lacking: Option<CommitHash>,
}

impl From<HubErrorKind> for Refused {
    fn from(kind: HubErrorKind) -> Self {
        Self { kind, lacking: None }
    }
}

/// Asks the endpoint for the description of a file.
///
/// Redirects within the endpoint are followed, because a renamed repository and small files have
/// them. A redirect to another host must come with the description. Commit, ETag and size from
/// another host are ignored.
pub(crate) fn describe(http: &Http, url: &Url) -> Result<FileMetadata, Refused> {
    let mut url = url.clone();
    let mut headers = Headers::default();
    for _ in 0..=http.limits().redirects {
        let answer = http.request(&url, Ask::Head)?;
        headers.add(&answer)?;
        match answer.redirect()? {
            // A redirect with the whole description is not followed here; the download follows it.
            Some(next) if http.is_endpoint(&next) && !headers.are_whole() => url = next,
            Some(next) => return headers.whole(&answer).map_err(|kind| elsewhere(kind, &answer, &next)),
            None => {
                let lacking = lacking(&answer);
                let answer = answer.accepted().map_err(|kind| Refused { kind, lacking })?;
                return Ok(headers.whole(&answer)?);
            }
        }
    }
    Err(http.too_many_redirects(&url).into())
}

impl Headers {
    fn add(&mut self, answer: &Answer) -> Result<(), HubErrorKind> {
        if let (None, Some(commit)) = (&self.commit, answer.header("x-repo-commit")?) {
            self.commit = Some(CommitHash::parse(commit)?);
        }
        // ETag and Content-Length of a redirect describe the redirect.
        let own = answer.status() == 200;
        let linked = answer.header("x-linked-etag")?;
        if let (None, Some(etag)) = (&self.etag, linked.or(if own { answer.header("etag")? } else { None })) {
            self.etag = Some(Etag::parse(etag)?);
        }
        let linked = answer.length("x-linked-size")?;
        let length = if own { answer.length("content-length")? } else { None };
        self.size = self.size.or(linked).or(length);
        Ok(())
    }

    fn are_whole(&self) -> bool {
        self.commit.is_some() && self.etag.is_some() && self.size.is_some()
    }

    fn whole(self, answer: &Answer) -> Result<FileMetadata, HubErrorKind> {
        let lacks = |header: &str| answer.wrong(format!("lacks {header}, which every hub sends"));
        Ok(FileMetadata {
            commit: self.commit.ok_or_else(|| lacks("X-Repo-Commit"))?,
            etag: self.etag.ok_or_else(|| lacks("ETag"))?,
            size: self.size.ok_or_else(|| lacks("Content-Length"))?,
        })
    }
}

/// Converts the error about a redirect to another host without a description.
fn elsewhere(kind: HubErrorKind, answer: &Answer, next: &Url) -> Refused {
    let kind = match kind {
        HubErrorKind::Answer { .. } => HubErrorKind::Redirect {
            host: answer.host(),
            reason: format!("to `{}` without describing the file", place(next)),
        },
        other => other,
    };
    kind.into()
}

/// Returns the commit of an answer that says that this commit lacks the file.
fn lacking(answer: &Answer) -> Option<CommitHash> {
    let entry = answer.header("x-error-code").ok().flatten() == Some("EntryNotFound");
    let commit = answer.header("x-repo-commit").ok().flatten().and_then(|commit| CommitHash::parse(commit).ok());
    commit.filter(|_| entry && answer.status() == 404)
}
