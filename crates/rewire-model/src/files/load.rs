//! Loads a [`Transformer`] from Hugging Face model files, memory-mapped or embedded, and converts
//! it back.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use burn::tensor::backend::Backend;
use rewire_input::{check_regular, cut, read_regular, repeated_key};
use serde_json::Value;

use crate::config::{Architecture, TransformerConfig};
use crate::error::ModelError;
use crate::files::fields::MOST_JSON_BYTES;
use crate::files::layout::{self, BLOCK_PARTS, WeightName};
use crate::files::tensors::Weights;
use crate::network::transformer::Transformer;
use crate::weights::init::on_device;

/// The files of one model: `config.json`, weights in one or more safetensors files, and
/// `tokenizer.json`.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    config: File,
    weights: Vec<File>,
    tokenizer: Option<File>,
}

/// A file on disk, or a file that is part of the program.
#[derive(Debug, Clone)]
enum File {
    OnDisk(PathBuf),
    Embedded { name: PathBuf, bytes: &'static [u8] },
}

/// The bytes of a [`File`].
enum Bytes {
    Mapped(memmap2::Mmap),
    Embedded(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

impl File {
    fn path(&self) -> &Path {
        match self {
            File::OnDisk(path) => path,
            File::Embedded { name, .. } => name,
        }
    }

    fn version(&self) -> Result<String, ModelError> {
        match self {
            File::Embedded { bytes, .. } => Ok(format!("{} bytes, CRC-32 {:08x}", bytes.len(), crc32fast::hash(bytes))),
            File::OnDisk(path) => {
                let read = |source| ModelError::Read { path: path.clone(), source };
                let about = std::fs::metadata(path).map_err(read)?;
                let changed = about.modified().map_err(read)?;
                // A time before 1970 is negative.
                let changed = match changed.duration_since(UNIX_EPOCH) {
                    Ok(after) => after.as_nanos() as i128,
                    Err(before) => -(before.duration().as_nanos() as i128),
                };
                Ok(format!("{} bytes, changed {changed} ns after 1970", about.len()))
            }
        }
    }

    fn bytes(&self) -> Result<Bytes, ModelError> {
        match self {
            File::Embedded { bytes, .. } => Ok(Bytes::Embedded(bytes)),
            File::OnDisk(path) => {
                map(path).map(Bytes::Mapped).map_err(|source| ModelError::Read { path: path.clone(), source })
            }
        }
    }
}

// SAFETY: the map is read-only and dropped before loading returns. If another process shortens the
// file in the meantime, reading it faults. Every loader of these files accepts this risk, because
// the alternative is to hold two copies of a model in memory.
#[allow(unsafe_code)]
fn map(path: &Path) -> std::io::Result<memmap2::Mmap> {
    let file = std::fs::File::open(path)?;
    unsafe { memmap2::Mmap::map(&file) }
}

impl ModelFiles {
    /// Finds the files of a model in a directory in Hugging Face layout: `config.json`;
    /// `model.safetensors`, or `model.safetensors.index.json` with its shards; and `tokenizer.json`
    /// if it is there.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] if a file is missing, [`ModelError::Read`] if a name is not a
    /// regular file, and [`ModelError::Config`] for a malformed index.
    pub fn directory(directory: &Path) -> Result<Self, ModelError> {
        let existing = |name: &str| existing(directory.join(name));
        let missing = |file: &str| ModelError::MissingFile { directory: directory.into(), file: file.into() };
        let config = existing("config.json")?.ok_or_else(|| missing("config.json"))?;
        let weights = match (existing("model.safetensors")?, existing("model.safetensors.index.json")?) {
            (Some(single), _) => vec![single],
            (None, Some(index)) => {
                let shards = shards_of_index(&index)?;
                shards.iter().map(|s| existing(s)?.ok_or_else(|| missing(s))).collect::<Result<_, _>>()?
            }
            (None, None) => return Err(missing("model.safetensors (nor model.safetensors.index.json)")),
        };
        Ok(Self::at(config, weights, existing("tokenizer.json")?))
    }

    /// Uses the model in these files.
    #[must_use]
    pub fn at(config: PathBuf, weights: Vec<PathBuf>, tokenizer: Option<PathBuf>) -> Self {
        Self {
            config: File::OnDisk(config),
            weights: weights.into_iter().map(File::OnDisk).collect(),
            tokenizer: tokenizer.map(File::OnDisk),
        }
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
            tokenizer: tokenizer.map(|bytes| file("tokenizer.json", bytes)),
        }
    }

    /// Reads the model's configuration.
    ///
    /// # Errors
    /// [`ModelError::Read`], or [`ModelError::Config`], which names the field.
    pub fn config(&self) -> Result<TransformerConfig, ModelError> {
        let path = self.config.path();
        let config = |reason| ModelError::Config { path: path.into(), reason };
        let bytes = self.config.bytes()?;
        TransformerConfig::from_json(&bytes).map_err(config)
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

    /// Returns the contents of `tokenizer.json` and the path that messages show, or `None` if the
    /// model has no tokenizer.
    ///
    /// # Errors
    /// [`ModelError::Read`] if a file cannot be read.
    pub fn tokenizer(&self) -> Result<Option<(PathBuf, Vec<u8>)>, ModelError> {
        let Some(file) = &self.tokenizer else { return Ok(None) };
        Ok(Some((file.path().into(), file.bytes()?.to_vec())))
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

impl<B: Backend> Transformer<B> {
    /// Loads a model with the weights as its files have them. [`processed`](Transformer::processed)
    /// folds and centers them.
    ///
    /// Files are memory-mapped and converted to float32 one tensor at a time. Loading therefore
    /// needs little more memory than the model in float32.
    ///
    /// # Errors
    /// [`ModelError`], which names the file and the tensor, unless the files hold a complete model
    /// of a supported architecture with finite weights.
    pub fn load(files: &ModelFiles, device: &B::Device) -> Result<Self, ModelError> {
        let config = files.config()?;
        let bytes = files.weights.iter().map(File::bytes).collect::<Result<Vec<_>, _>>()?;
        let contents: Vec<_> = files.weights.iter().map(File::path).zip(bytes.iter().map(Deref::deref)).collect();
        let mut weights = Weights::read(&config, &contents)?;
        weights.check_tied()?;
        let model = Transformer::assemble(&config, |part, layer| {
            Ok::<_, ModelError>(on_device(weights.take(part, layer)?, device))
        })?;
        weights.finish()?;
        Ok(model)
    }
}

/// One tensor to save: its name, shape and float32 values in the file's layout.
pub type SavedTensor = (String, Vec<usize>, Vec<f32>);

/// Returns the model's weights in file layout, for a `model.safetensors` that [`Transformer::load`]
/// reads back. Returns `None` for a processed model, because the file format has no place for
/// folded weights.
#[must_use]
pub fn tensors_to_save<B: Backend>(model: &Transformer<B>) -> Option<Vec<SavedTensor>> {
    let config = model.config();
    let mut parts = vec![(WeightName::WE, 0)];
    if config.architecture == Architecture::Gpt2 {
        parts.push((WeightName::WPos, 0));
    }
    let of_block = || BLOCK_PARTS.into_iter().filter(|&part| layout::is_stored(config, part));
    parts.extend((0..config.n_layers).flat_map(|layer| of_block().map(move |part| (part, layer))));
    parts.extend([(WeightName::FinalGain, 0), (WeightName::FinalBias, 0)]);
    if !config.tied_unembedding {
        parts.push((WeightName::WU, 0));
    }
    let save = |(part, layer)| {
        let data = layout::to_file(config, part, model.part(part, layer)?);
        Some((layout::file_name(config.architecture, part, layer), layout::file_shape(config, part), data))
    };
    parts.into_iter().map(save).collect()
}
