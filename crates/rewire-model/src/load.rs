//! Hugging Face model files, memory-mapped or embedded, to a [`Transformer`], and back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde_json::Value;

use crate::init::on_device;
use crate::layout::{self, BLOCK_PARTS, Part};
use crate::{Architecture, ModelError, Transformer, TransformerConfig};

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
    /// [`ModelError::MissingFile`], or [`ModelError::Config`] for a malformed index.
    pub fn directory(directory: &Path) -> Result<Self, ModelError> {
        let existing = |name: &str| Some(directory.join(name)).filter(|p| p.is_file());
        let missing = |file: &str| ModelError::MissingFile { directory: directory.into(), file: file.into() };
        let config = existing("config.json").ok_or_else(|| missing("config.json"))?;
        let weights = match (existing("model.safetensors"), existing("model.safetensors.index.json")) {
            (Some(single), _) => vec![single],
            (None, Some(index)) => {
                let shards = shards_of_index(&index)?;
                shards.iter().map(|s| existing(s).ok_or_else(|| missing(s))).collect::<Result<_, _>>()?
            }
            (None, None) => return Err(missing("model.safetensors (nor model.safetensors.index.json)")),
        };
        Ok(Self::at(config, weights, existing("tokenizer.json")))
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
        let text = std::str::from_utf8(&bytes).map_err(|e| config(e.to_string()))?;
        TransformerConfig::from_json(text).map_err(config)
    }

    /// Length and CRC-32 of the configuration and of each file of weights: what tells one model from another when work on it
    /// is taken up again.
    ///
    /// # Errors
    /// [`ModelError::Read`].
    pub fn checksums(&self) -> Result<Vec<(usize, u32)>, ModelError> {
        let sum = |file: &File| {
            let bytes = file.bytes()?;
            Ok((bytes.len(), crc32fast::hash(&bytes)))
        };
        [&self.config].into_iter().chain(&self.weights).map(sum).collect()
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

/// The shard files that an index names, each once.
pub(crate) fn shards_of_index(index: &Path) -> Result<Vec<String>, ModelError> {
    let config = |reason: String| ModelError::Config { path: index.into(), reason };
    let text = std::fs::read_to_string(index).map_err(|source| ModelError::Read { path: index.into(), source })?;
    let json: Value = serde_json::from_str(&text).map_err(|e| config(format!("malformed JSON: {e}")))?;
    let map =
        json.get("weight_map").and_then(Value::as_object).ok_or_else(|| config("`weight_map` is missing".into()))?;
    let shards: Option<BTreeSet<String>> = map.values().map(|v| v.as_str().map(str::to_owned)).collect();
    let shards = shards.ok_or_else(|| config("`weight_map` names a shard by something other than a string".into()))?;
    match shards.iter().find(|s| Path::new(s).file_name().is_none_or(|name| name != s.as_str())) {
        Some(outside) => Err(config(format!("shard `{outside}` is not a plain file name"))),
        None => Ok(shards.into_iter().collect()),
    }
}

impl<B: Backend> Transformer<B> {
    /// Loads a model as its files have it; [`processed`](Transformer::processed) folds and centres the weights.
    ///
    /// Files are memory-mapped and converted to float32 one tensor at a time, so that loading needs the model's size in
    /// float32 and little more.
    ///
    /// # Errors
    /// [`ModelError`], naming the file and the tensor, for anything but a whole, finite model of a supported architecture.
    pub fn load(files: &ModelFiles, device: &B::Device) -> Result<Self, ModelError> {
        let config = files.config()?;
        let bytes = files.weights.iter().map(File::bytes).collect::<Result<Vec<_>, _>>()?;
        let mut tensors = BTreeMap::new();
        for (file, bytes) in files.weights.iter().zip(&bytes) {
            let path = file.path();
            let parsed = SafeTensors::deserialize(bytes).map_err(|e| unreadable(path, &e))?;
            for (name, view) in parsed.tensors() {
                let name = name.strip_prefix("transformer.").map(str::to_owned).unwrap_or(name);
                tensors.insert(name, (path, view));
            }
        }
        let mut weights = Weights { config: &config, tensors, first: files.weights[0].path() };
        weights.check_tied()?;
        let model = Transformer::assemble(&config, |part, layer| {
            Ok::<_, ModelError>(on_device(weights.take(part, layer)?, device))
        })?;
        weights.finish()?;
        Ok(model)
    }
}

fn unreadable(path: &Path, error: &SafeTensorError) -> ModelError {
    let reason = match error {
        SafeTensorError::MetadataIncompleteBuffer => "it ends before the last tensor does".to_owned(),
        SafeTensorError::HeaderTooSmall => "it is shorter than a header".to_owned(),
        SafeTensorError::InvalidHeaderLength => "it ends inside its header".to_owned(),
        other => other.to_string(),
    };
    ModelError::Safetensors { path: path.into(), reason }
}

/// The tensors of a model's files that nothing has taken yet.
struct Weights<'a> {
    config: &'a TransformerConfig,
    tensors: BTreeMap<String, (&'a Path, TensorView<'a>)>,
    first: &'a Path,
}

impl Weights<'_> {
    /// The part's values in the model's layout.
    fn take(&mut self, part: Part, layer: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = layout::file_name(self.config.architecture, part, layer);
        let Some((path, view)) = self.tensors.remove(&tensor) else {
            return Err(ModelError::MissingTensor { path: self.first.into(), tensor });
        };
        let expected = layout::file_shape(self.config, part);
        if view.shape() != expected {
            return Err(ModelError::TensorShape { path: path.into(), tensor, expected, found: view.shape().to_vec() });
        }
        let values = to_f32(&view).ok_or_else(|| ModelError::TensorType {
            path: path.into(),
            tensor: tensor.clone(),
            dtype: view.dtype().to_string(),
        })?;
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(ModelError::NotFinite { path: path.into(), tensor, value: values[index], index });
        }
        Ok(layout::to_model(self.config, part, values))
    }

    /// Refuses an unembedding that differs from the embedding that the configuration ties it to.
    fn check_tied(&self) -> Result<(), ModelError> {
        let [tensor, embedding] = [Part::WU, Part::WE].map(|p| layout::file_name(self.config.architecture, p, 0));
        let (true, Some((path, w_u)), Some((_, w_e))) =
            (self.config.tied_unembedding, self.tensors.get(&tensor), self.tensors.get(&embedding))
        else {
            return Ok(());
        };
        let equal = match w_u.dtype() == w_e.dtype() {
            true => w_u.data() == w_e.data(),
            false => to_f32(w_u) == to_f32(w_e),
        };
        match equal {
            true => Ok(()),
            false => Err(ModelError::NotTied { path: (*path).into(), tensor, embedding }),
        }
    }

    /// Refuses tensors that the model has no place for.
    fn finish(self) -> Result<(), ModelError> {
        let tied = self.config.tied_unembedding.then(|| layout::file_name(self.config.architecture, Part::WU, 0));
        let stray = |name: &&String| !layout::is_buffer(name) && Some(*name) != tied.as_ref();
        match self.tensors.keys().find(stray) {
            None => Ok(()),
            Some(name) => Err(ModelError::UnexpectedTensor { path: self.tensors[name].0.into(), tensor: name.clone() }),
        }
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let pairs = || view.data().chunks_exact(2).map(|b| [b[0], b[1]]);
    match view.dtype() {
        Dtype::F32 => Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}

/// One tensor to save: its name, shape and float32 values in the file's layout.
pub type SavedTensor = (String, Vec<usize>, Vec<f32>);

/// The model's weights as its files hold them, for writing a `model.safetensors` that [`Transformer::load`] reads back.
/// `None` for a processed model, whose folded weights have no place there.
#[must_use]
pub fn tensors_to_save<B: Backend>(model: &Transformer<B>) -> Option<Vec<SavedTensor>> {
    let config = model.config();
    let mut parts = vec![(Part::WE, 0)];
    if config.architecture == Architecture::Gpt2 {
        parts.push((Part::WPos, 0));
    }
    parts.extend((0..config.n_layers).flat_map(|layer| BLOCK_PARTS.map(|part| (part, layer))));
    parts.extend([(Part::FinalGain, 0), (Part::FinalBias, 0)]);
    if !config.tied_unembedding {
        parts.push((Part::WU, 0));
    }
    let save = |(part, layer)| {
        let data = layout::to_file(config, part, model.part(part, layer)?);
        Some((layout::file_name(config.architecture, part, layer), layout::file_shape(config, part), data))
    };
    parts.into_iter().map(save).collect()
}
