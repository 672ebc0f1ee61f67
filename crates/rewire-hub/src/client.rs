//! The client: returns the files of a repository at one commit.

use std::path::PathBuf;

use crate::cache::RepoCache;
use crate::config::{Access, HubConfig};
use crate::download::Download;
use crate::error::{HubError, HubErrorKind};
use crate::http::Http;
use crate::lock::Lock;
use crate::metadata::{FileMetadata, describe};
use crate::names::{CommitHash, FileName, RepoId, Revision};
use crate::progress::Bar;
use crate::retry::Attempts;
use crate::shown::shown;

/// Access to a hub and its cache.
#[derive(Debug, Clone)]
pub struct HubClient {
    config: HubConfig,
}

impl HubClient {
    /// Makes a client. Reads no file and makes no request.
    #[must_use]
    pub fn new(config: HubConfig) -> Self {
        Self { config }
    }

    /// Returns a repository at a revision. Reads no file and makes no request.
    #[must_use]
    pub fn snapshot(&self, repository: &str, revision: &str) -> Snapshot<'_> {
        Snapshot { config: &self.config, repository: repository.into(), revision: revision.into(), state: None }
    }
}

/// The files of one repository at one revision.
///
/// All files come from one commit, even if the revision moves in the meantime. The cache decides
/// the commit if it knows the revision; otherwise the hub decides it with the first file.
#[derive(Debug)]
pub struct Snapshot<'a> {
    config: &'a HubConfig,
    repository: String,
    revision: String,
    state: Option<State>,
}

/// A snapshot whose names have been checked.
#[derive(Debug)]
struct State {
    repository: RepoId,
    revision: Revision,
    cache: RepoCache,
    commit: Option<CommitHash>,
    http: Option<Http>,
}

impl Snapshot<'_> {
    /// Returns the path of a file in the cache. The file is downloaded if it is absent or damaged.
    ///
    /// A cached file is checked and then used without a request. A file of up to 64 MiB is checked
    /// by its hash, and a larger one by its format.
    ///
    /// # Errors
    /// [`HubError`], which names the repository, the revision and the file; [`HubError::is_absent`]
    /// is true if the file does not exist.
    pub fn get(&mut self, file: &str) -> Result<PathBuf, HubError> {
        self.path_of(file).map_err(|kind| HubError {
            repository: shown(&self.repository),
            revision: shown(&self.revision),
            file: shown(file),
            kind: Box::new(kind),
        })
    }

    fn path_of(&mut self, file: &str) -> Result<PathBuf, HubErrorKind> {
        let config = self.config;
        let name = FileName::parse(file)?;
        let state = match &mut self.state {
            Some(state) => state,
            empty => empty.insert(State::new(config, &self.repository, &self.revision)?),
        };
        if let Some(path) = state.cached(config, &name)? {
            return Ok(path);
        }
        if config.access == Access::Offline {
            return Err(HubErrorKind::NotCached { cache: config.cache.clone() });
        }
        state.download(config, &name)
    }
}

impl State {
    fn new(config: &HubConfig, repository: &str, revision: &str) -> Result<Self, HubErrorKind> {
        let (repository, revision) = (RepoId::parse(repository)?, Revision::parse(revision)?);
        let cache = RepoCache::new(&config.cache, &repository);
        let commit = cache.commit_of(&revision)?;
        Ok(Self { repository, revision, cache, commit, http: None })
    }

    /// Returns the cached file, if it exists and passes its checks.
    fn cached(&self, config: &HubConfig, name: &FileName) -> Result<Option<PathBuf>, HubErrorKind> {
        let Some(commit) = &self.commit else { return Ok(None) };
        match self.cache.file(commit, name) {
            Err(HubErrorKind::Damaged { path, reason }) if config.access == Access::Online => {
                let path = path.display();
                config.notice.say(&format!("{path} is damaged: {reason}; downloading it again"));
                Ok(None)
            }
            Ok(None) => match self.cache.absence(commit, name)? {
                Some(mark) if config.access == Access::Online => Err(HubErrorKind::NotFound {
                    hint: format!(" The hub has reported this file as absent; delete {} to ask again", mark.display()),
                }),
                _ => Ok(None),
            },
            other => other,
        }
    }

    fn download(&mut self, config: &HubConfig, name: &FileName) -> Result<PathBuf, HubErrorKind> {
        let bar = Bar::new(config, name.as_str());
        let http = match self.http.take() {
            Some(http) => http,
            None => Http::new(config)?,
        };
        let path = self.download_from(&http, config, name, &bar);
        self.http = Some(http);
        path
    }

    fn download_from(
        &mut self,
        http: &Http,
        config: &HubConfig,
        name: &FileName,
        bar: &Bar,
    ) -> Result<PathBuf, HubErrorKind> {
        let expected = self.describe(http, name, bar)?;
        let limit = if name.has_extension("json") { config.limits.json_bytes } else { config.limits.file_bytes };
        if expected.size > limit {
            return Err(HubErrorKind::TooLarge { size: expected.size, limit });
        }
        let lock = Lock::take(&self.cache.lock(&expected.etag)?, config.limits.lock, bar)?;
        if !self.cache.has_blob(&expected.etag, name, expected.size)? {
            let url = http.url(&self.resolve(expected.commit.as_str(), name))?;
            let incomplete = self.cache.incomplete(&expected.etag)?;
            Download { http, url: &url, name, expected: &expected, bar }.to(incomplete.clone())?;
            self.cache.keep(&incomplete, &expected.etag)?;
        }
        let path = self.cache.link(&expected.commit, name, &expected.etag)?;
        if self.commit.is_none() {
            self.cache.write_reference(&self.revision, &expected.commit)?;
            self.commit = Some(expected.commit);
        }
        drop(lock);
        Ok(path)
    }

    /// Asks the hub for the file's ETag and size at the snapshot's commit.
    fn describe(&self, http: &Http, name: &FileName, bar: &Bar) -> Result<FileMetadata, HubErrorKind> {
        let revision = self.commit.as_ref().map_or_else(|| self.revision.encoded(), |commit| commit.as_str().into());
        let url = http.url(&self.resolve(&revision, name))?;
        let mut attempts = Attempts::new(http.limits(), bar, 0);
        let metadata = loop {
            match describe(http, &url) {
                Ok(metadata) => break metadata,
                Err(refused) => {
                    if let Some(commit) = refused.lacking {
                        self.cache.mark_absence(&commit, name)?;
                    }
                    attempts.wait_after(self.with_hint(refused.kind), 0)?;
                }
            }
        };
        match &self.commit {
            Some(commit) if *commit != metadata.commit => Err(HubErrorKind::Answer {
                host: http.endpoint_host(),
                reason: format!("is of commit {}, not {}", metadata.commit.as_str(), commit.as_str()),
            }),
            _ => Ok(metadata),
        }
    }

    /// Adds the cached file that decided the commit, because the hub may no longer have that
    /// commit.
    fn with_hint(&self, kind: HubErrorKind) -> HubErrorKind {
        match (&self.commit, kind) {
            (Some(commit), HubErrorKind::NotFound { .. }) if self.revision.as_commit().is_none() => {
                let reference = self.cache.reference(&self.revision);
                let (commit, reference) = (commit.as_str(), reference.display());
                let hint =
                    format!(" In the cache, the revision is commit {commit}; delete {reference} to ask for the newest");
                HubErrorKind::NotFound { hint }
            }
            (_, kind) => kind,
        }
    }

    /// Returns the file's path below the endpoint.
    fn resolve(&self, revision: &str, name: &FileName) -> String {
        format!("{}/resolve/{revision}/{}", self.repository.as_str(), name.encoded())
    }
}
