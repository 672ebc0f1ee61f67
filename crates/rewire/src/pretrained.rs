//! Finding a model by its name.

use std::path::Path;

use burn::tensor::backend::Backend;
use rewire_model::{ModelFiles, Transformer, TransformerConfig, WeightProcessing};
use rewire_tasks::Tokenizer;
use rewire_toy::Toy;

use crate::error::Error;
use crate::language_model::LanguageModel;

/// A model's files, found and checked, before its weights are loaded.
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
}

impl Pretrained {
    /// Finds a model: `toy-gpt2` or `toy-neox`, which are part of the program; a directory in
    /// Hugging Face layout; or, with the feature `hub`, `gpt2`, `gpt2-medium`, `pythia-160m`, .. or
    /// `owner/name`, each with an optional `@revision`. Models from the hub are downloaded once, to
    /// the cache that `HF_HOME` names.
    ///
    /// # Errors
    /// [`Error::Model`] for a name that is none of these, a download that fails, or a config that is
    /// not supported; [`Error::Tokenizer`] for a damaged tokenizer.json.
    pub fn open(name: &str) -> Result<Self, Error> {
        let directory = Path::new(name);
        let files = match name.parse::<Toy>() {
            Ok(toy) => toy.files(),
            Err(_) if directory.is_dir() => ModelFiles::directory(directory)?,
            Err(_) => from_hub(name)?,
        };
        Self::from_files(name, files)
    }

    /// The same from files that were found in another way; `name` is for messages and reports.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_files(name: &str, files: ModelFiles) -> Result<Self, Error> {
        let config = files.config()?;
        let tokenizer = files.tokenizer()?.map(|(path, bytes)| Tokenizer::from_bytes(&bytes, &path)).transpose()?;
        Ok(Self { name: name.to_owned(), files, config, tokenizer, processing: WeightProcessing::default() })
    }

    /// Leaves the weights as the files have them. By default they are processed as TransformerLens
    /// does: norms folded into the weights after them, weights that write to the residual stream
    /// centered, the unembedding centered. Processing changes no probability.
    #[must_use]
    pub fn raw(self) -> Self {
        Self { processing: WeightProcessing::none(), ..self }
    }

    /// The model's shape.
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

    /// Loads the weights on a device.
    ///
    /// # Errors
    /// [`Error::Model`], naming the file and the tensor.
    pub fn load_on<B: Backend>(self, device: &B::Device) -> Result<LanguageModel<B>, Error> {
        let transformer = Transformer::load(&self.files, device)?.processed(self.processing);
        Ok(LanguageModel::new(self.name, transformer, self.tokenizer))
    }
}

#[cfg(feature = "hub")]
fn from_hub(name: &str) -> Result<ModelFiles, Error> {
    let (repository, revision) = rewire_model::resolve_repository(name)?;
    Ok(rewire_model::Hub::from_env().fetch(&repository, &revision)?)
}

/// Without the feature `hub` there are embedded models and directories.
#[cfg(not(feature = "hub"))]
fn from_hub(name: &str) -> Result<ModelFiles, Error> {
    Ok(ModelFiles::directory(Path::new(name))?)
}
