//! Hugging Face model files, memory-mapped or embedded, to a [`Transformer`], and back.

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

/// The files of one model: `config.json`, weights in one or several safetensors files, and `tokenizer.json`.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    config: File,
    weights: Vec<File>,
    tokenizer: Option<File>,
}

/// A file on disk, or one that is part of the program.
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

// SAFETY: the map is read-only and dropped before loading returns. Another process that shortens the file meanwhile would
// make reading it fault; that is the price of not holding two copies of a model in memory, and every loader of these files
// pays it.
#[allow(unsafe_code)]
fn map(path: &Path) -> std::io::Result<memmap2::Mmap> {
    let file = std::fs::File::open(path)?;
    unsafe { memmap2::Mmap::map(&file) }
}

impl ModelFiles {
    /// The model in a directory laid out as Hugging Face does: `config.json`; `model.safetensors`, or
    /// `model.safetensors.index.json` with its shards; and, if it is there, `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`], [`ModelError::Read`] for a name that is no file, or
    /// [`ModelError::Config`] for a malformed index.
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

    /// The model in these files.
    #[must_use]
    pub fn at(config: PathBuf, weights: Vec<PathBuf>, tokenizer: Option<PathBuf>) -> Self {
        Self {
            config: File::OnDisk(config),
            weights: weights.into_iter().map(File::OnDisk).collect(),
            tokenizer: tokenizer.map(File::OnDisk),
        }
    }

    /// A model that is part of the program, from the contents of its three files; `name` stands for it in messages.
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

    /// The model's shape.
    ///
    /// # Errors
    /// [`ModelError::Read`], or [`ModelError::Config`] naming the field.
    pub fn config(&self) -> Result<TransformerConfig, ModelError> {
        let path = self.config.path();
        let config = |reason| ModelError::Config { path: path.into(), reason };
        let bytes = self.config.bytes()?;
        TransformerConfig::from_json(&bytes).map_err(config)
    }

    /// What tells one model from another when work on it is taken up again, in words: of the
    /// configuration and of each file of weights the length, and when it was last changed (of an
    /// embedded model the CRC-32). Weights are not read for it: that would take as long as the work
    /// itself where they are large.
    ///
    /// # Errors
    /// [`ModelError::Read`].
    pub fn versions(&self) -> Result<Vec<String>, ModelError> {
        [&self.config].into_iter().chain(&self.weights).map(File::version).collect()
    }

    /// The contents of `tokenizer.json`, with the path that stands for it in messages; `None` if the model has none.
    ///
    /// # Errors
    /// [`ModelError::Read`].
    pub fn tokenizer(&self) -> Result<Option<(PathBuf, Vec<u8>)>, ModelError> {
        let Some(file) = &self.tokenizer else { return Ok(None) };
        Ok(Some((file.path().into(), file.bytes()?.to_vec())))
    }
}

/// The path, if something is there; what is there must be a file.
fn existing(path: PathBuf) -> Result<Option<PathBuf>, ModelError> {
    match check_regular(&path) {
        Ok(()) => Ok(Some(path)),
        Err(absent) if is_absence(absent.kind()) => Ok(None),
        Err(source) => Err(ModelError::Read { path, source }),
    }
}

/// Whether an error says that there is no such file. An index may name a shard that no file can be
/// called.
fn is_absence(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::InvalidFilename)
}

/// The shard files that an index names, each once.
pub(crate) fn shards_of_index(index: &Path) -> Result<Vec<String>, ModelError> {
    let config = |reason: String| ModelError::Config { path: index.into(), reason };
    let text =
        read_regular(index, MOST_JSON_BYTES).map_err(|source| ModelError::Read { path: index.into(), source })?;
    let json: Value = serde_json::from_slice(&text).map_err(|e| config(format!("malformed JSON: {e}")))?;
    if let Some(key) = repeated_key(&text) {
        return Err(config(format!("it names `{}` twice; keep one of them", cut(&key))));
    }
    let map =
        json.get("weight_map").and_then(Value::as_object).ok_or_else(|| config("`weight_map` is missing".into()))?;
    if map.is_empty() {
        return Err(config("`weight_map` names no shard; it must say which file each tensor is in".into()));
    }
    let shards: Option<BTreeSet<String>> = map.values().map(|v| v.as_str().map(str::to_owned)).collect();
    let shards = shards.ok_or_else(|| config("`weight_map` names a shard by something other than a string".into()))?;
    match shards.iter().find(|s| Path::new(s).file_name().is_none_or(|name| name != s.as_str())) {
        Some(outside) => Err(config(format!("shard `{}` is not a plain file name", cut(outside)))),
        None => Ok(shards.into_iter().collect()),
    }
}

impl<B: Backend> Transformer<B> {
    /// Loads a model as its files have it; [`processed`](Transformer::processed) folds and centers the weights.
    ///
    /// Files are memory-mapped and converted to float32 one tensor at a time, so that loading needs the model's size in
    /// float32 and little more.
    ///
    /// # Errors
    /// [`ModelError`], naming the file and the tensor, for anything but a whole, finite model of a supported architecture.
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

/// The model's weights as its files hold them, for writing a `model.safetensors` that [`Transformer::load`] reads back.
/// `None` for a processed model, whose folded weights have no place there.
#[must_use]
pub fn tensors_to_save<B: Backend>(model: &Transformer<B>) -> Option<Vec<SavedTensor>> {
    let config = model.config();
    let mut parts = vec![(WeightName::WE, 0)];
    if config.architecture == Architecture::Gpt2 {
        parts.push((WeightName::WPos, 0));
    }
    parts.extend((0..config.n_layers).flat_map(|layer| BLOCK_PARTS.map(|part| (part, layer))));
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
