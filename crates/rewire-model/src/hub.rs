//! Models from the Hugging Face hub: its cache, its endpoint, and its offline mode.

use std::fmt;
use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use crate::load::shards_of_index;
use crate::{ModelError, ModelFiles};

/// Models that are known by a short name, and the repositories they are in.
const KNOWN: [(&str, &str); 12] = [
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-small", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("pythia-70m", "EleutherAI/pythia-70m"),
    ("pythia-160m", "EleutherAI/pythia-160m"),
    ("pythia-410m", "EleutherAI/pythia-410m"),
    ("pythia-1b", "EleutherAI/pythia-1b"),
    ("pythia-1.4b", "EleutherAI/pythia-1.4b"),
    ("pythia-2.8b", "EleutherAI/pythia-2.8b"),
    ("pythia-6.9b", "EleutherAI/pythia-6.9b"),
];

/// A repository and a revision of it for a model's name: a short name (`gpt2`, `pythia-160m`) or `owner/name`, each with an
/// optional `@revision` (Pythia keeps its training checkpoints as `@step3000`).
///
/// # Errors
/// [`ModelError::UnknownModel`], listing the short names.
pub fn resolve_repository(name: &str) -> Result<(String, String), ModelError> {
    let (base, revision) = name.split_once('@').unwrap_or((name, "main"));
    let known = KNOWN.iter().find(|(short, _)| *short == base).map(|(_, repository)| (*repository).to_owned());
    let plain =
        |s: &str| !s.is_empty() && !s.starts_with('.') && s.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    let repository = known.or_else(|| {
        let (owner, rest) = base.split_once('/')?;
        (plain(owner) && plain(rest)).then(|| base.to_owned())
    });
    match repository {
        Some(repository) if !revision.is_empty() => Ok((repository, revision.to_owned())),
        _ => {
            let known: Vec<_> = KNOWN.iter().map(|(short, _)| *short).collect();
            Err(ModelError::UnknownModel { name: name.to_owned(), known: known.join(", ") })
        }
    }
}

/// Access to the hub or to what of it is cached.
#[derive(Clone)]
pub struct Hub {
    cache: PathBuf,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
    progress: bool,
}

impl Hub {
    /// As the environment has it: `HF_HOME` for the cache, `HF_ENDPOINT` for another endpoint, `HF_TOKEN` (or the token kept
    /// in `HF_HOME`) for gated models, `HF_HUB_OFFLINE` (1, true, yes, on) for the cache alone.
    #[must_use]
    pub fn from_env() -> Self {
        let on = |value: String| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on");
        Self {
            cache: Cache::from_env().path().clone(),
            endpoint: std::env::var("HF_ENDPOINT").ok().filter(|e| !e.is_empty()),
            token: std::env::var("HF_TOKEN").ok().filter(|t| !t.is_empty()),
            offline: std::env::var("HF_HUB_OFFLINE").is_ok_and(on),
            progress: false,
        }
    }

    /// With this cache directory and endpoint, whatever the environment says.
    #[must_use]
    pub fn new(cache: PathBuf, endpoint: Option<String>) -> Self {
        Self { cache, endpoint, token: None, offline: false, progress: false }
    }

    /// The same, using only what is cached.
    #[must_use]
    pub fn offline(self) -> Self {
        Self { offline: true, ..self }
    }

    /// The same, with a progress bar on standard error while a file downloads.
    #[must_use]
    pub fn with_progress_bar(self) -> Self {
        Self { progress: true, ..self }
    }

    /// The files of a model, downloaded if they are not cached. A download that was broken off is taken up where it ended.
    ///
    /// # Errors
    /// [`ModelError::Hub`] where the hub does not give a file, [`ModelError::Offline`] where it may not be asked.
    pub fn fetch(&self, repository: &str, revision: &str) -> Result<ModelFiles, ModelError> {
        let source = Source::new(self, repository, revision)?;
        let config = source.get("config.json")?;
        let weights = match source.get("model.safetensors") {
            Ok(single) => vec![single],
            Err(absent) if source.is_absent(&absent) => {
                // Only the error about the usual single file is told when there is no index either.
                let Ok(index) = source.get("model.safetensors.index.json") else { return Err(absent) };
                let shards = shards_of_index(&index)?;
                shards.iter().map(|shard| source.get(shard)).collect::<Result<_, _>>()?
            }
            Err(broken) => return Err(broken),
        };
        let tokenizer = match source.get("tokenizer.json") {
            Ok(path) => Some(path),
            Err(absent) if source.is_absent(&absent) => None,
            Err(broken) => return Err(broken),
        };
        Ok(ModelFiles::at(config, weights, tokenizer))
    }
}

/// Without the token.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, endpoint, offline, .. } = self;
        f.debug_struct("Hub")
            .field("cache", cache)
            .field("endpoint", endpoint)
            .field("offline", offline)
            .finish_non_exhaustive()
    }
}

/// One repository at one revision.
struct Source<'a> {
    hub: &'a Hub,
    repo: Repo,
    api: Option<Api>,
}

impl<'a> Source<'a> {
    fn new(hub: &'a Hub, repository: &str, revision: &str) -> Result<Self, ModelError> {
        let repo = Repo::with_revision(repository.to_owned(), RepoType::Model, revision.to_owned());
        let mut source = Self { hub, repo, api: None };
        if !hub.offline {
            let mut builder = ApiBuilder::from_cache(Cache::new(hub.cache.clone())).with_progress(hub.progress);
            if let Some(endpoint) = &hub.endpoint {
                builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
            }
            if let Some(token) = &hub.token {
                builder = builder.with_token(Some(token.clone()));
            }
            source.api = Some(builder.build().map_err(|e| source.failed("anything", &e))?);
        }
        Ok(source)
    }

    fn get(&self, file: &str) -> Result<PathBuf, ModelError> {
        match &self.api {
            Some(api) => api.repo(self.repo.clone()).get(file).map_err(|e| self.failed(file, &e)),
            None => {
                let cached = Cache::new(self.hub.cache.clone()).repo(self.repo.clone()).get(file);
                cached.ok_or_else(|| ModelError::Offline {
                    repository: self.repo.url(),
                    revision: self.repo.revision().to_owned(),
                    file: file.to_owned(),
                    cache: self.hub.cache.clone(),
                })
            }
        }
    }

    /// Whether the error means that the repository has no such file, as opposed to one that could not be had.
    fn is_absent(&self, error: &ModelError) -> bool {
        match error {
            ModelError::Offline { .. } => true,
            ModelError::Hub { reason, .. } => reason.starts_with(NOT_FOUND),
            _ => false,
        }
    }

    fn failed(&self, file: &str, error: &ApiError) -> ModelError {
        let text = error.to_string();
        let reason = if text.contains("status: 404") {
            format!("{NOT_FOUND} (HTTP 404): does the repository, the revision and the file exist?")
        } else if text.contains("status: 401") || text.contains("status: 403") {
            format!("access is denied ({text}); a gated model needs HF_TOKEN")
        } else {
            text
        };
        let (repository, revision) = (self.repo.url(), self.repo.revision().to_owned());
        ModelError::Hub { repository, revision, file: file.to_owned(), reason }
    }
}

const NOT_FOUND: &str = "not found";
