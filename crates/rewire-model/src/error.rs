//! Everything that loading or running a model can refuse.

use std::path::PathBuf;

use rewire_input::cut;

/// Why a model could not be loaded or run. Each names the file, tensor or value at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// An activation that a run needs was not recorded.
    #[error(transparent)]
    Cache(#[from] rewire_hooks::CacheError),
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
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
    /// `config.json` is not what the loader understands.
    #[error("{path}: {reason}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight file is no safetensors file, or ends early.
    #[error("{path} is not a whole safetensors file: {reason}")]
    Safetensors {
        /// The weight file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// A model without a weight file.
    #[error("there is no weight file; give at least one safetensors file")]
    NoWeights,
    /// A tensor that is there twice, under one name or with and without the prefix `transformer.`.
    #[error(
        "the tensor `{}` in {first} and the tensor `{}` in {second} are the same weight; keep one of them",
        cut(first_name),
        cut(second_name)
    )]
    RepeatedTensor {
        /// The weight file of one.
        first: PathBuf,
        /// The name that it has there.
        first_name: String,
        /// The weight file of the other.
        second: PathBuf,
        /// The name that it has there.
        second_name: String,
    },
    /// A tensor that the configuration implies is absent.
    #[error("{path} lacks the tensor `{tensor}`")]
    MissingTensor {
        /// The weight file (or its index).
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the architecture has no place for.
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
    /// An unembedding that differs from the embedding that the configuration ties it to.
    #[error(
        "{path}: tensor `{tensor}` differs from `{embedding}`, and by config.json they are the same weights; set \
         `tie_word_embeddings` to false to use both"
    )]
    NotTied {
        /// The weight file.
        path: PathBuf,
        /// The unembedding.
        tensor: String,
        /// The embedding.
        embedding: String,
    },
    /// A tensor with another shape than the configuration implies.
    #[error("{path}: tensor `{tensor}` has shape {}, config.json implies {expected:?}", cut(&format!("{found:?}")))]
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
    /// A tensor stored as something other than f32, f16 or bf16.
    #[error("{path}: tensor `{tensor}` is {dtype}; weights must be F32, F16 or BF16")]
    TensorType {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// A weight that is NaN or infinite.
    #[error("{path}: tensor `{tensor}` holds {value} at index {index}; the weights are damaged")]
    NotFinite {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its place in row-major order.
        index: usize,
    },
    /// A name that is no known model, repository or directory.
    #[error(
        "unknown model `{}`: give {known}, a Hugging Face repository (`owner/name`), or a directory with config.json",
        cut(name)
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// The hub did not give a file.
    #[error("cannot fetch {file} of {repository} (revision {revision}): {reason}")]
    Hub {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// Offline mode, and the cache lacks a file.
    #[error("{file} of {repository} (revision {revision}) is not in the cache {cache}, and HF_HUB_OFFLINE is set")]
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
    /// No prompts, or a prompt without tokens.
    #[error("there are no tokens to run the model on")]
    NoTokens,
    /// Prompts of different lengths in one batch.
    #[error("prompt {prompt} has {found} tokens, the first one {expected}; pad on the right or run them apart")]
    UnequalPrompts {
        /// Index of the prompt.
        prompt: usize,
        /// Length of the first prompt.
        expected: usize,
        /// Length of this prompt.
        found: usize,
    },
    /// A token id that the model does not have.
    #[error("token id {token} at position {position} of prompt {prompt} is outside the vocabulary of {d_vocab}")]
    TokenOutsideVocabulary {
        /// The token.
        token: u32,
        /// Index of the prompt.
        prompt: usize,
        /// Position in the prompt.
        position: usize,
        /// Size of the vocabulary.
        d_vocab: usize,
    },
    /// More positions than the model has.
    #[error("{found} positions are more than the model's context of {n_ctx}")]
    ContextExceeded {
        /// Positions asked for.
        found: usize,
        /// Positions that the model has.
        n_ctx: usize,
    },
    /// A run whose parts do not fit together.
    #[error("{what}: expected {expected}, found {found}")]
    RunShape {
        /// What does not fit.
        what: &'static str,
        /// The size or bound that was expected.
        expected: usize,
        /// What was given.
        found: usize,
    },
}
