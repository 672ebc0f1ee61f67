//! Finds and loads a model by its name.

use burn::tensor::backend::Backend;
use rewire_model::{ModelFiles, Transformer, TransformerConfig, WeightProcessing, WeightStorage};
use rewire_tasks::Tokenizer;
use rewire_toy::Toy;

use crate::error::Error;
use crate::language_model::LanguageModel;

/// The files of a model, found and checked, before the weights are loaded.
///
/// # Example
/// ```
/// use rewire::{Cpu, Pretrained};
///
/// let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
/// assert_eq!(model.config().n_layers, 4);
/// # Ok::<(), rewire::Error>(())
/// ```
#[derive(Debug)]
pub struct Pretrained {
    name: String,
    files: ModelFiles,
    config: TransformerConfig,
    tokenizer: Option<Tokenizer>,
    processing: WeightProcessing,
    storage: WeightStorage,
}

impl Pretrained {
    /// Finds a model by its name.
    ///
    /// The name is one of these:
    ///
    /// - `toy-gpt2` or `toy-neox`, which are part of the program
    /// - a directory in Hugging Face layout
    /// - a GGUF file, whose name ends in `.gguf`
    /// - with the feature `hub`, a short name (`gpt2`, `gpt2-medium`, `pythia-160m`, ..) or
    ///   `owner/name`, with an optional `@revision`, and an optional `:FILE.gguf` for a GGUF file
    ///   of the repository
    /// - with the feature `hub`, `smollm2`, once `cargo xtask fetch-smollm2` has fetched it
    ///
    /// Models from the hub are downloaded once, to the cache that `HF_HOME` names.
    ///
    /// # Errors
    /// [`Error::Model`] for an unknown name, a failed download, an unsupported configuration or a
    /// damaged vocab.json or merges.txt, and [`Error::Tokenizer`] for a damaged tokenizer.json.
    pub fn open(name: &str) -> Result<Self, Error> {
        let files = if let Ok(toy) = name.parse::<Toy>() {
            toy.files()
        } else if let Some(files) = ModelFiles::on_disk(name)? {
            files
        } else {
            from_hub(name)?
        };
        Self::from_files(name, files)
    }

    /// Uses these files of a model. Messages and reports show `name`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_files(name: &str, files: ModelFiles) -> Result<Self, Error> {
        let config = files.config()?;
        let tokenizer = files.tokenizer()?.map(|(path, bytes)| Tokenizer::from_bytes(&bytes, &path)).transpose()?;
        let (processing, storage) = (WeightProcessing::default(), WeightStorage::default());
        Ok(Self { name: name.to_owned(), files, config, tokenizer, processing, storage })
    }

    /// Keeps the weights as the files have them.
    ///
    /// By default, the weights are processed as TransformerLens does it: norms are folded into the
    /// weights after them, and the unembedding and the weights that write to the residual stream
    /// are centered. Processing changes no probability.
    #[must_use]
    pub fn raw(self) -> Self {
        Self { processing: WeightProcessing::none(), ..self }
    }

    /// Leaves the weights in their files, for models that are too large as float32. Each matrix is
    /// converted when it is used. The numbers are the same, bit for bit.
    ///
    /// # Example
    /// ```
    /// use rewire::{Cpu, Pretrained};
    ///
    /// let model = Pretrained::open("toy-gpt2")?.stored().load::<Cpu>()?;
    /// assert_eq!(model.run(vec![1, 2, 3])?.dims()[1], 3);
    /// # Ok::<(), rewire::Error>(())
    /// ```
    #[must_use]
    pub fn stored(self) -> Self {
        Self { storage: WeightStorage::Stored, ..self }
    }

    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Loads the weights on the default device of backend `B`.
    ///
    /// # Errors
    /// [`Error::Model`], naming the file and the tensor.
    pub fn load<B: Backend>(self) -> Result<LanguageModel<B>, Error> {
        self.load_on(&B::Device::default())
    }

    /// Loads the weights on `device`.
    ///
    /// # Errors
    /// [`Error::Model`], naming the file and the tensor.
    pub fn load_on<B: Backend>(self, device: &B::Device) -> Result<LanguageModel<B>, Error> {
        let (transformer, warnings) = Transformer::load_in(&self.files, self.storage, device)?;
        let transformer = transformer.processed(self.processing);
        Ok(LanguageModel::new(self.name, transformer, self.tokenizer).with_warnings(warnings))
    }
}

#[cfg(feature = "hub")]
fn from_hub(name: &str) -> Result<ModelFiles, Error> {
    if let Some(directory) = rewire_model::packaged_directory(name)? {
        return Ok(ModelFiles::directory(&directory)?);
    }
    let (repository, revision) = rewire_model::resolve_repository(name)?;
    Ok(rewire_model::Hub::from_env().fetch(&repository, &revision)?)
}

/// Without the feature `hub`, only embedded models and directories can be loaded.
#[cfg(not(feature = "hub"))]
fn from_hub(name: &str) -> Result<ModelFiles, Error> {
    Ok(ModelFiles::directory(std::path::Path::new(name))?)
}
