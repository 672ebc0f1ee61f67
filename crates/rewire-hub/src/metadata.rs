//! What the hub says about a file before it is downloaded: its commit, its tag and its size.

use url::Url;

use crate::error::HubErrorKind;
use crate::http::{Answer, Ask, Http, place};
use crate::names::{CommitHash, Etag};

/// A file as the hub describes it.
#[derive(Debug, Clone)]
pub(crate) struct FileMetadata {
    pub(crate) commit: CommitHash,
    pub(crate) etag: Etag,
    pub(crate) size: u64,
}

/// The headers of the endpoint's answers; of each the first counts.
#[derive(Default)]
struct Headers {
    commit: Option<CommitHash>,
    etag: Option<Etag>,
    size: Option<u64>,
}

/// A failed question, with the commit that is known to lack the file, if the hub says that much.
pub(crate) struct Refused {
    pub(crate) kind: HubErrorKind,
    pub(crate) lacking: Option<CommitHash>,
}

impl From<HubErrorKind> for Refused {
    fn from(kind: HubErrorKind) -> Self {
        Self { kind, lacking: None }
    }
}

/// Asks the endpoint about a file.
///
/// Redirects within the endpoint are followed: a repository has a new name, or its small files another path. A redirect to
/// another host leads to the content of a large file, which the redirecting answer has described. Another host's word on
/// commit and tag counts for nothing.
pub(crate) fn describe(http: &Http, url: &Url) -> Result<FileMetadata, Refused> {
    let mut url = url.clone();
    let mut headers = Headers::default();
    for _ in 0..=http.limits().redirects {
        let answer = http.request(&url, Ask::Head)?;
        headers.add(&answer)?;
        match answer.redirect()? {
            // A redirect that describes the file is enough; the download follows it.
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
        // A redirect's own tag and length are those of the redirect.
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

/// A redirect to another host that does not describe the file.
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

/// The commit of an answer that says that exactly this file is absent.
fn lacking(answer: &Answer) -> Option<CommitHash> {
    let entry = answer.header("x-error-code").ok().flatten() == Some("EntryNotFound");
    let commit = answer.header("x-repo-commit").ok().flatten().and_then(|commit| CommitHash::parse(commit).ok());
    commit.filter(|_| entry && answer.status() == 404)
}
