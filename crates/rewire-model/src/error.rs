//! The errors of loading and running a model.

use std::path::{Path, PathBuf};

use rewire_input::{cut, did_you_mean};

/// Why a model could not be loaded or run. Each error names the file, tensor or value that is
/// wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The cache lacks an activation that a run needs.
    #[error(transparent)]
    Cache(#[from] rewire_hooks::CacheError),
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A model directory lacks a file.
    #[error("{directory} has no {}", cut(file))]
    MissingFile {
        /// The model directory.
        directory: PathBuf,
        /// The file that should be there.
        file: String,
    },
    /// `config.json` is malformed, or describes an unsupported model.
    #[error("{path}: {reason}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The error, with the field's name.
        reason: String,
    },
    /// A weight file is not a safetensors file, or is truncated.
    #[error("{path} is not a whole safetensors file: {reason}")]
    Safetensors {
        /// The weight file.
        path: PathBuf,
        /// The reader's error message.
        reason: String,
    },
    /// A weight file is not a PyTorch checkpoint, or is damaged.
    #[error(
        "{path} cannot be read as a PyTorch checkpoint: {reason}; save the model again, as model.safetensors \
         (docs/models.md has the command)"
    )]
    Checkpoint {
        /// The weight file.
        path: PathBuf,
        /// The reader's error message.
        reason: String,
    },
    /// A GGUF file is damaged, or holds a model that is not supported.
    #[error(transparent)]
    Gguf(#[from] rewire_gguf::GgufError),
    /// A model directory without other weights has several GGUF files.
    #[error("{directory} has {} GGUF files ({}); give the path of one of them", files.len(), listed(files))]
    SeveralGguf {
        /// The model directory.
        directory: PathBuf,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// `vocab.json`, `merges.txt` or a file of special tokens is damaged.
    #[error("{}: {reason}", place(path, *line))]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if the file has lines.
        line: Option<usize>,
        /// The error.
        reason: String,
    },
    /// The model has no weight file.
    #[error("there is no weight file; give at least one safetensors file")]
    NoWeights,
    /// The weight files hold a tensor twice, under one name or with and without the prefix
    /// `transformer.`.
    #[error(
        "the tensor `{}` in {first} and the tensor `{}` in {second} are the same weight; keep one",
        cut(first_name),
        cut(second_name)
    )]
    RepeatedTensor {
        /// The weight file with the first copy.
        first: PathBuf,
        /// The name that it has there.
        first_name: String,
        /// The weight file with the second copy.
        second: PathBuf,
        /// The name that it has there.
        second_name: String,
    },
    /// The weight files lack a tensor that the configuration implies.
    #[error("{path} lacks the tensor `{tensor}`")]
    MissingTensor {
        /// The weight file (or its index).
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The weight files hold the token embedding under a longer name.
    #[error(
        "{path} lacks the tensor `{tensor}`, and has `{}`; remove the prefix `{}` from the names of its tensors",
        cut(found),
        cut(prefix)
    )]
    ForeignPrefix {
        /// The weight file (or its index).
        path: PathBuf,
        /// The name of the token embedding.
        tensor: String,
        /// The name that it has instead.
        found: String,
        /// The prefix to remove.
        prefix: String,
    },
    /// The weight files hold a tensor that the architecture does not have.
    #[error(
        "{path} holds the tensor `{}`, which this architecture does not have; is config.json the right one?",
        cut(tensor)
    )]
    UnexpectedTensor {
        /// The weight file (or its index).
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{path}: tensor `{tensor}` has shape {}, but config.json implies {expected:?}", cut(&format!("{found:?}")))]
    TensorShape {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape implied by the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has another element type than f32, f16 or bf16.
    #[error("{path}: tensor `{tensor}` has the type {dtype}; weights must be F32, F16 or BF16")]
    TensorType {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: String,
    },
    /// A weight is NaN or infinite.
    #[error("{path}: tensor `{tensor}` holds {value} at index {index}; the weights are damaged")]
    NotFinite {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its index in row-major order.
        index: usize,
    },
    /// The weights of a PyTorch checkpoint were to stay in the file.
    #[error(
        "{path}: the weights of a PyTorch checkpoint cannot stay in the file (--weights stored); convert it to \
         safetensors, or load its weights as float32"
    )]
    StoredCheckpoint {
        /// The weight file.
        path: PathBuf,
    },
    /// The name is not a known model, repository or directory.
    #[error(
        "unknown model `{}`: give {known}, a Hugging Face repository (`owner/name`), or a directory with config.json{}",
        cut(name),
        did_you_mean(name.split('@').next().unwrap_or_default(), known.split(", "))
    )]
    UnknownModel {
        /// The name that the caller gave.
        name: String,
        /// The known names.
        known: String,
    },
    /// A file could not be fetched from the hub.
    #[error("cannot fetch {file} of {repository} (revision {revision}): {reason}")]
    Hub {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// The cause.
        reason: String,
    },
    /// The cache lacks a file in offline mode.
    #[error(
        "{file} of {repository} (revision {revision}) is not in the cache {cache}, and HF_HUB_OFFLINE is set; unset it to download the file"
    )]
    Offline {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// The cache directory.
        cache: PathBuf,
    },
    /// A model that comes inside a package is not in the cache.
    #[error("{name} is not fetched: {path} is missing; run `{command}` in Rewire's repository")]
    NotFetched {
        /// The model's name.
        name: String,
        /// The missing file.
        path: PathBuf,
        /// The command that fetches it.
        command: &'static str,
    },
    /// There are no prompts, or a prompt has no tokens.
    #[error("there are no tokens to run the model on; give at least one prompt with at least one token")]
    NoTokens,
    /// The prompts of a batch have different lengths.
    #[error(
        "prompt {prompt} has {found} tokens, but the first prompt has {expected}; pad on the right or run them separately"
    )]
    UnequalPrompts {
        /// Index of the prompt, from 0.
        prompt: usize,
        /// Length of the first prompt.
        expected: usize,
        /// Length of this prompt.
        found: usize,
    },
    /// A token id is outside the model's vocabulary.
    #[error("token id {token} at position {position} of prompt {prompt} is outside the vocabulary of {d_vocab}")]
    TokenOutsideVocabulary {
        /// The token.
        token: u32,
        /// Index of the prompt, from 0.
        prompt: usize,
        /// Position in the prompt.
        position: usize,
        /// Size of the vocabulary.
        d_vocab: usize,
    },
    /// There are more positions than the model's context holds.
    #[error("{found} positions are more than the model's context of {n_ctx}; use shorter prompts")]
    ContextExceeded {
        /// The number of positions of the run.
        found: usize,
        /// The number of positions of the context.
        n_ctx: usize,
    },
    /// The parts of a run do not fit together or do not fit the model.
    #[error("{what}: expected {expected}, found {found}")]
    RunShape {
        /// The part that does not fit.
        what: &'static str,
        /// The size or bound that was expected.
        expected: usize,
        /// The size or value that was given.
        found: usize,
    },
}

/// Returns the names of files, cut if there are many.
fn listed(files: &[PathBuf]) -> String {
    let names = files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy()));
    cut(&names.collect::<Vec<_>>().join(", "))
}

/// Returns a file and, if it has lines, the line.
fn place(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}, line {line}", path.display()),
        None => path.display().to_string(),
    }
}
