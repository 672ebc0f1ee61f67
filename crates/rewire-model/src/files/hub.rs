//! Models from the Hugging Face hub: its cache, its endpoint, and its offline mode.

use std::path::{Path, PathBuf};

use rewire_hub::{
    Access, HubClient, HubConfig, HubError, HubErrorKind, Notice, Progress, RepoId, SMOLLM2, Snapshot, shown,
};

use crate::error::ModelError;
use crate::files::gguf::is_gguf;
use crate::files::model_files::{ModelFiles, WEIGHTS, shards_of_index};
use crate::files::vocabulary::SETTINGS;

/// Models with a short name, and their repositories.
const KNOWN: [(&str, &str); 31] = [
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
    ("gpt-neo-125m", "EleutherAI/gpt-neo-125m"),
    ("gpt-neo-1.3b", "EleutherAI/gpt-neo-1.3B"),
    ("gpt-j-6b", "EleutherAI/gpt-j-6b"),
    ("opt-125m", "facebook/opt-125m"),
    ("opt-1.3b", "facebook/opt-1.3b"),
    ("llama-3.2-1b", "meta-llama/Llama-3.2-1B"),
    ("llama-3.2-3b", "meta-llama/Llama-3.2-3B"),
    ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
    ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M"),
    ("smollm3-3b", "HuggingFaceTB/SmolLM3-3B"),
    ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
    ("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B"),
    ("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B"),
    ("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
    ("gemma-2-2b", "google/gemma-2-2b"),
    ("gemma-3-270m", "google/gemma-3-270m"),
    ("gemma-3-1b-pt", "google/gemma-3-1b-pt"),
    ("olmo-2-1b", "allenai/OLMo-2-0425-1B"),
    ("phi-3-mini", "microsoft/Phi-3-mini-4k-instruct"),
];

/// Returns the models with a short name, each with its repository.
pub fn short_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    KNOWN.into_iter()
}

/// Returns the repository and the revision for a model's name.
///
/// The name is a short name (`gpt2`, `pythia-160m`; capitals do not matter) or `owner/name`, each
/// with an optional `@revision` (Pythia keeps its training checkpoints as `@step3000`).
/// [`Hub::fetch`] checks the revision. A name may end with `:FILE.gguf`, a GGUF file in the
/// repository, and the repository that is returned then has the same end.
///
/// # Errors
/// [`ModelError::UnknownModel`], which lists the short names.
pub fn resolve_repository(name: &str) -> Result<(String, String), ModelError> {
    let (whole, file) = match name.split_once(':') {
        Some((whole, file)) if is_gguf(Path::new(file)) => (whole, format!(":{file}")),
        _ => (name, String::new()),
    };
    let (base, revision) = whole.split_once('@').unwrap_or((whole, "main"));
    let known = KNOWN
        .iter()
        .find(|(short, _)| short.eq_ignore_ascii_case(base))
        .map(|(_, repository)| (*repository).to_owned());
    let given = || (base.contains('/') && RepoId::parse(base).is_ok()).then(|| base.to_owned());
    match known.or_else(given) {
        Some(repository) if !revision.is_empty() => Ok((repository + &file, revision.to_owned())),
        _ => {
            let known: Vec<_> = KNOWN.iter().map(|(short, _)| *short).chain([SMOLLM2.name]).collect();
            Err(ModelError::UnknownModel { name: shown(name), known: known.join(", ") })
        }
    }
}

/// Access to the Hugging Face hub, or only to its cache.
#[derive(Debug, Clone)]
pub struct Hub {
    config: HubConfig,
}

impl Hub {
    /// Reads the environment variables of Python's `huggingface_hub`: `HF_HOME` or `HF_HUB_CACHE`
    /// for the cache, `HF_ENDPOINT` for another endpoint, `HF_TOKEN` (or the token kept in
    /// `HF_HOME`) for gated models, and `HF_HUB_OFFLINE` (1, true, yes, on) to use only the cache.
    #[must_use]
    pub fn from_env() -> Self {
        Self { config: HubConfig::from_env() }
    }

    /// Uses this cache directory and endpoint, and ignores the environment.
    #[must_use]
    pub fn new(cache: PathBuf, endpoint: Option<String>) -> Self {
        let mut config = HubConfig::new(cache);
        if let Some(endpoint) = endpoint {
            config.endpoint = endpoint;
        }
        Self { config }
    }

    /// Uses only cached files.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.config.access = Access::Offline;
        self
    }

    /// Shows a progress bar on standard error during downloads, if standard error is a terminal.
    #[must_use]
    pub fn with_progress_bar(mut self) -> Self {
        self.config.progress = Progress::Bar;
        self
    }

    /// Passes a line to `notice` for each retry, each damaged file in the cache and each wait for
    /// another process.
    #[must_use]
    pub fn with_notices(mut self, notice: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.config.notice = Notice::new(notice);
        self
    }

    /// Returns the files of a model, all from one commit. Downloads files that are missing or
    /// damaged in the cache, and continues unfinished downloads. The files are those of
    /// [`ModelFiles::directory`], or the one GGUF file in `owner/name:FILE.gguf`.
    ///
    /// # Errors
    /// [`ModelError::Hub`] if a file could not be fetched, and [`ModelError::Offline`] if the hub
    /// is offline and the cache lacks a file.
    pub fn fetch(&self, repository: &str, revision: &str) -> Result<ModelFiles, ModelError> {
        let client = HubClient::new(self.config.clone());
        if let Some((repository, file)) = repository.split_once(':') {
            return ModelFiles::gguf(&client.snapshot(repository, revision).get(file).map_err(model_error)?);
        }
        let mut source = client.snapshot(repository, revision);
        let config = source.get("config.json").map_err(model_error)?;
        let weights = weights(&mut source)?;
        let tokenizer = if_present(source.get("tokenizer.json"))?;
        let has_tokenizer = tokenizer.is_some();
        let files = ModelFiles::at(config, weights, tokenizer);
        if has_tokenizer {
            return Ok(files);
        }
        let Some(vocabulary) = if_present(source.get("vocab.json"))? else { return Ok(files) };
        let Some(merges) = if_present(source.get("merges.txt"))? else { return Ok(files) };
        let mut settings = Vec::new();
        for name in SETTINGS {
            settings.extend(if_present(source.get(name))?);
        }
        Ok(files.with_vocabulary(vocabulary, merges, settings))
    }
}

/// Fetches the weights: the first of [`WEIGHTS`] that the repository has.
fn weights(source: &mut Snapshot<'_>) -> Result<Vec<PathBuf>, ModelError> {
    let mut first_absent = None;
    for [single, index] in WEIGHTS {
        match source.get(single) {
            Ok(single) => return Ok(vec![single]),
            Err(absent) if absent.is_absent() => {
                first_absent.get_or_insert(absent);
            }
            Err(broken) => return Err(model_error(broken)),
        }
        if let Some(index) = if_present(source.get(index))? {
            let shards = shards_of_index(&index)?;
            return shards.iter().map(|shard| source.get(shard).map_err(model_error)).collect();
        }
    }
    // The error about the usual single file is the most helpful.
    match first_absent {
        Some(absent) => Err(model_error(absent)),
        None => Err(ModelError::NoWeights),
    }
}

/// Returns `None` for a file that the repository does not have.
fn if_present(fetched: Result<PathBuf, HubError>) -> Result<Option<PathBuf>, ModelError> {
    match fetched {
        Ok(path) => Ok(Some(path)),
        Err(absent) if absent.is_absent() => Ok(None),
        Err(broken) => Err(model_error(broken)),
    }
}

fn model_error(error: HubError) -> ModelError {
    let HubError { repository, revision, file, kind, .. } = error;
    match *kind {
        HubErrorKind::NotCached { cache } => ModelError::Offline { repository, revision, file, cache },
        other => ModelError::Hub { repository, revision, file, reason: other.to_string() },
    }
}
