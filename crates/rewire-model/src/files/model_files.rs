//! The files of a model: found in a directory, given one by one, or embedded in the program.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rewire_input::{check_regular, cut, read_regular, repeated_key};
use serde_json::Value;

use crate::config::TransformerConfig;
use crate::error::ModelError;
use crate::files::checkpoint::is_checkpoint;
use crate::files::config_file::MOST_JSON_BYTES;
use crate::files::file::{File, OpenWeights};
use crate::files::gguf;
use crate::files::vocabulary::{SETTINGS, VocabularyFiles};

/// The files of one model: `config.json`, weights in one or more files, and a tokenizer. All of
/// them may be in one GGUF file.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    config: File,
    weights: Vec<File>,
    tokenizer: Option<TokenizerFiles>,
}

/// The files of a tokenizer.
#[derive(Debug, Clone)]
enum TokenizerFiles {
    /// `tokenizer.json`, or a GGUF file.
    Whole(File),
    /// `vocab.json` and `merges.txt`.
    Vocabulary(VocabularyFiles),
}

/// The names of weights, in the order in which they are looked for: a file, and the index of its
/// shards.
pub(crate) const WEIGHTS: [[&str; 2]; 2] =
    [["model.safetensors", "model.safetensors.index.json"], ["pytorch_model.bin", "pytorch_model.bin.index.json"]];

impl ModelFiles {
    /// Finds the files of a model in a directory in Hugging Face layout.
    ///
    /// These are `config.json`; the weights; and, if they are there, `tokenizer.json`, or
    /// `vocab.json` and `merges.txt`. The weights are the first of `model.safetensors`,
    /// `model.safetensors.index.json` with its shards, `pytorch_model.bin`, and
    /// `pytorch_model.bin.index.json` with its shards.
    ///
    /// A directory without `config.json` or without weights may have one GGUF file instead.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] if a file is missing, [`ModelError::Read`] if a name is not a
    /// regular file, [`ModelError::Config`] for a malformed index, and
    /// [`ModelError::SeveralGguf`] if the choice between GGUF files would be arbitrary.
    pub fn directory(directory: &Path) -> Result<Self, ModelError> {
        let existing = |name: &str| existing(directory.join(name));
        let missing = |file: &str| ModelError::MissingFile { directory: directory.into(), file: file.into() };
        let Some(config) = existing("config.json")? else {
            return gguf::only_file_in(directory)?.map(Self::in_one_file).ok_or_else(|| missing("config.json"));
        };
        let mut weights = None;
        for [single, index] in WEIGHTS {
            weights = match (existing(single)?, existing(index)?) {
                (Some(single), _) => Some(vec![single]),
                (None, Some(index)) => {
                    let shards = shards_of_index(&index)?;
                    Some(shards.iter().map(|s| existing(s)?.ok_or_else(|| missing(s))).collect::<Result<_, _>>()?)
                }
                (None, None) => continue,
            };
            break;
        }
        let Some(weights) = weights else {
            let gguf = gguf::only_file_in(directory)?.map(Self::in_one_file);
            return gguf
                .ok_or_else(|| missing("model.safetensors (nor its index, nor pytorch_model.bin, nor its index)"));
        };
        let files = Self::at(config, weights, existing("tokenizer.json")?);
        match (&files.tokenizer, existing("vocab.json")?, existing("merges.txt")?) {
            (None, Some(vocabulary), Some(merges)) => {
                let settings = SETTINGS.into_iter().map(existing).collect::<Result<Vec<_>, _>>()?;
                Ok(files.with_vocabulary(vocabulary, merges, settings.into_iter().flatten().collect()))
            }
            _ => Ok(files),
        }
    }

    /// Finds the files of a model on disk: `name` is a directory, or a GGUF file, whose name ends
    /// in `.gguf`. Returns `None` for any other name.
    ///
    /// # Errors
    /// Those of [`directory`](Self::directory) and [`gguf`](Self::gguf).
    pub fn on_disk(name: &str) -> Result<Option<Self>, ModelError> {
        let path = Path::new(name);
        if path.is_dir() {
            return Self::directory(path).map(Some);
        }
        // `owner/name:FILE.gguf` is a file on the hub.
        match gguf::is_gguf(path) && (path.exists() || !name.contains(':')) {
            true => Self::gguf(path).map(Some),
            false => Ok(None),
        }
    }

    /// Uses the model in a GGUF file: its configuration, weights and tokenizer.
    ///
    /// # Errors
    /// [`ModelError::Read`] if there is no such file.
    pub fn gguf(path: &Path) -> Result<Self, ModelError> {
        match check_regular(path) {
            Ok(()) => Ok(Self::in_one_file(path.into())),
            Err(source) => Err(ModelError::Read { path: path.into(), source }),
        }
    }

    fn in_one_file(path: PathBuf) -> Self {
        Self::at(path.clone(), vec![path.clone()], Some(path))
    }

    /// Uses the model in these files. The weights are safetensors files, or, if their names end in
    /// `.bin`, PyTorch checkpoints. The tokenizer is a `tokenizer.json`. A file whose name ends in
    /// `.gguf` may take each of these places.
    #[must_use]
    pub fn at(config: PathBuf, weights: Vec<PathBuf>, tokenizer: Option<PathBuf>) -> Self {
        Self {
            config: File::OnDisk(config),
            weights: weights.into_iter().map(File::OnDisk).collect(),
            tokenizer: tokenizer.map(|path| TokenizerFiles::Whole(File::OnDisk(path))),
        }
    }

    /// Uses the byte-level BPE of `vocab.json` and `merges.txt` as the tokenizer.
    ///
    /// `settings` are files that name special tokens: `added_tokens.json`,
    /// `special_tokens_map.json` and `tokenizer_config.json`, as far as the model has them.
    #[must_use]
    pub fn with_vocabulary(self, vocabulary: PathBuf, merges: PathBuf, settings: Vec<PathBuf>) -> Self {
        let files = VocabularyFiles { vocabulary, merges, settings };
        Self { tokenizer: Some(TokenizerFiles::Vocabulary(files)), ..self }
    }

    /// Uses a model that is part of the program, given as the contents of its three files. Messages
    /// show `name` as its directory.
    #[must_use]
    pub fn embedded(
        name: &str,
        config: &'static [u8],
        weights: &'static [u8],
        tokenizer: Option<&'static [u8]>,
    ) -> Self {
        let file = |file: &str, bytes| File::Embedded { name: Path::new(name).join(file), bytes };
        Self {
            config: file("config.json", config),
            weights: vec![file("model.safetensors", weights)],
            tokenizer: tokenizer.map(|bytes| TokenizerFiles::Whole(file("tokenizer.json", bytes))),
        }
    }

    /// Reads the model's configuration.
    ///
    /// # Errors
    /// [`ModelError::Read`], or [`ModelError::Config`] or [`ModelError::Gguf`], which name the
    /// field or the key.
    pub fn config(&self) -> Result<TransformerConfig, ModelError> {
        let path = self.config.path();
        let config = |reason| ModelError::Config { path: path.into(), reason };
        let bytes = self.config.bytes()?;
        match gguf::is_gguf(path) {
            true => TransformerConfig::from_json(&gguf::config(&bytes, path)?).map_err(config),
            false => TransformerConfig::from_json(&bytes).map_err(config),
        }
    }

    /// Returns a description of the configuration file and of each weight file that changes if the
    /// file changes. A sweep that resumes uses it to check that the model is the same.
    ///
    /// The description of a file on disk holds its length and the time of its last change. That of
    /// an embedded file holds its length and CRC-32. Weight files on disk are not read, because
    /// reading large weights can take as long as the sweep itself.
    ///
    /// # Errors
    /// [`ModelError::Read`] if a file cannot be read.
    pub fn versions(&self) -> Result<Vec<String>, ModelError> {
        [&self.config].into_iter().chain(&self.weights).map(File::version).collect()
    }

    /// Returns the SHA-256 of `config.json` and of each weight file, in hexadecimal digits, by the
    /// name of the file. Reads the files.
    ///
    /// # Errors
    /// [`ModelError::Read`] if a file cannot be read.
    pub fn sha256s(&self) -> Result<BTreeMap<String, String>, ModelError> {
        let mut files: Vec<&File> = [&self.config].into_iter().chain(&self.weights).collect();
        // A GGUF file holds the configuration and the weights.
        files.dedup_by(|file, former| file.path() == former.path());
        let name = |file: &File| file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.into_iter().map(|file| Ok((name(file), rewire_store::sha256(&file.bytes()?)))).collect()
    }

    /// Returns the contents of `tokenizer.json` and the path that messages show, or `None` if the
    /// model has no tokenizer.
    ///
    /// If the model has `vocab.json` and `merges.txt` instead, the contents are the
    /// `tokenizer.json` that transformers makes from them, and the path is that of `vocab.json`. If
    /// the tokenizer is in a GGUF file, the contents are the `tokenizer.json` that it came from.
    ///
    /// # Errors
    /// [`ModelError::Read`] if a file cannot be read, [`ModelError::Vocabulary`], which names the
    /// file and the line, if `vocab.json` and `merges.txt` are not a byte-level BPE, and
    /// [`ModelError::Gguf`] if the tokenizer of a GGUF file is damaged or not supported.
    pub fn tokenizer(&self) -> Result<Option<(PathBuf, Vec<u8>)>, ModelError> {
        match &self.tokenizer {
            None => Ok(None),
            Some(TokenizerFiles::Whole(file)) => {
                let (path, bytes) = (file.path(), file.bytes()?);
                let text = match gguf::is_gguf(path) {
                    true => gguf::tokenizer(&bytes, path)?,
                    false => Some(bytes.to_vec()),
                };
                Ok(text.map(|text| (path.into(), text)))
            }
            Some(TokenizerFiles::Vocabulary(files)) => Ok(Some((files.vocabulary.clone(), files.to_tokenizer_json()?))),
        }
    }

    /// Returns the bytes of the weight files.
    ///
    /// # Errors
    /// [`ModelError::Read`] if a file cannot be read.
    pub fn weight_bytes(&self) -> Result<u64, ModelError> {
        self.weights.iter().map(File::length).sum()
    }

    /// Returns whether the weights can stay in their files
    /// ([`WeightStorage::Stored`](crate::WeightStorage)): those of PyTorch checkpoints cannot.
    #[must_use]
    pub fn can_stay_stored(&self) -> bool {
        !self.weights.iter().any(|file| is_checkpoint(file.path()))
    }

    /// Opens the weight files. Returns each with its path.
    pub(crate) fn open_weights(&self) -> Result<Vec<(&Path, OpenWeights)>, ModelError> {
        self.weights.iter().map(|file| Ok((file.path(), file.open_weights()?))).collect()
    }
}

/// Returns the path if it exists. It must be a regular file.
fn existing(path: PathBuf) -> Result<Option<PathBuf>, ModelError> {
    match check_regular(&path) {
        Ok(()) => Ok(Some(path)),
        Err(absent) if is_absence(absent.kind()) => Ok(None),
        Err(source) => Err(ModelError::Read { path, source }),
    }
}

/// Returns whether an error means that the file does not exist. An index may name a shard with an
/// invalid file name.
fn is_absence(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::InvalidFilename)
}

/// Returns the shard files that an index names, each once.
pub(crate) fn shards_of_index(index: &Path) -> Result<Vec<String>, ModelError> {
    let config = |reason: String| ModelError::Config { path: index.into(), reason };
    let text =
        read_regular(index, MOST_JSON_BYTES).map_err(|source| ModelError::Read { path: index.into(), source })?;
    let json: Value = serde_json::from_slice(&text).map_err(|e| config(format!("malformed JSON: {e}")))?;
    if let Some(key) = repeated_key(&text) {
        return Err(config(format!("it names `{}` twice; keep one", cut(&key))));
    }
    let map =
        json.get("weight_map").and_then(Value::as_object).ok_or_else(|| config("`weight_map` is missing".into()))?;
    if map.is_empty() {
        return Err(config("`weight_map` names no shard; it must name the file of each tensor".into()));
    }
    let shards: Option<BTreeSet<String>> = map.values().map(|v| v.as_str().map(str::to_owned)).collect();
    let shards = shards.ok_or_else(|| config("`weight_map` names a shard by something other than a string".into()))?;
    match shards.iter().find(|s| Path::new(s).file_name().is_none_or(|name| name != s.as_str())) {
        Some(outside) => Err(config(format!("shard `{}` is not a plain file name", cut(outside)))),
        None => Ok(shards.into_iter().collect()),
    }
}
