//! The model that a command runs on: embedded, a directory, or from the hub.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use burn::tensor::backend::Backend;
use clap::Args;
use rewire_model::{Hub, ModelError, ModelFiles, Transformer, TransformerConfig, WeightProcessing, resolve_repository};
use rewire_tasks::Tokenizer;
use rewire_toy::Toy;

use crate::compute::MemoryArguments;
use crate::device::Device;

/// What every command that runs a model asks for.
#[derive(Args)]
pub(crate) struct ModelArguments {
    /// toy-gpt2, toy-neox; gpt2, gpt2-medium, .. or pythia-160m, .. or owner/name from the hub, each with an optional
    /// @revision; or a directory.
    #[arg(long, default_value = "toy-gpt2", value_name = "NAME|DIR")]
    pub(crate) model: String,
    /// Where to compute: auto, flex, ndarray, cuda, cuda:N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) memory: MemoryArguments,
    /// Leave the weights as the files have them: norms unfolded, nothing centred.
    #[arg(long)]
    pub(crate) no_process_weights: bool,
}

/// A model's files, read as far as is needed to know its shape and its tokens.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) files: ModelFiles,
    pub(crate) config: TransformerConfig,
    pub(crate) tokenizer: Option<Tokenizer>,
    processing: WeightProcessing,
}

impl Source {
    /// Finds the model; downloads it if it is the hub's and not cached.
    pub(crate) fn open(arguments: &ModelArguments) -> anyhow::Result<Self> {
        arguments.device.check()?;
        arguments.memory.apply();
        let name = &arguments.model;
        let directory = Path::new(name);
        let files = if let Ok(toy) = name.parse::<Toy>() {
            toy.files()
        } else if directory.is_dir() {
            ModelFiles::directory(directory)?
        } else {
            from_hub(name)?
        };
        let config = files.config()?;
        let tokenizer = files.tokenizer()?.map(|(path, bytes)| Tokenizer::from_bytes(&bytes, &path)).transpose()?;
        let processing = match arguments.no_process_weights {
            true => WeightProcessing::none(),
            false => WeightProcessing::default(),
        };
        Ok(Self { name: name.clone(), files, config, tokenizer, processing })
    }

    /// The tokenizer, for commands that make text.
    pub(crate) fn tokenizer(&self) -> anyhow::Result<&Tokenizer> {
        self.tokenizer.as_ref().with_context(|| format!("the model {} has no tokenizer.json", self.name))
    }

    /// Loads the weights, processed as asked for.
    pub(crate) fn load<B: Backend>(&self, device: &B::Device) -> Result<Transformer<B>, ModelError> {
        Ok(Transformer::load(&self.files, device)?.processed(self.processing))
    }

    /// Whether weights are processed.
    pub(crate) fn is_processed(&self) -> bool {
        self.processing != WeightProcessing::none()
    }

    /// The model in a line, for the head of a report.
    pub(crate) fn subtitle(&self, device: Device) -> String {
        let TransformerConfig { n_layers, n_heads, d_mlp, .. } = self.config;
        let weights = if self.is_processed() { "processed" } else { "unprocessed" };
        format!(
            "{}: {n_layers} layers, {n_heads} heads, {d_mlp} neurons a layer · {} · {weights} weights",
            self.name,
            device.resolve()
        )
    }

    /// Whether this is GPT-2 small: by its name, or, for a directory, by its shape.
    pub(crate) fn is_gpt2_small(&self) -> bool {
        let shape = TransformerConfig {
            bos_token: self.config.bos_token,
            ..TransformerConfig::gpt2(12, 12, 768, 50_257, 1024)
        };
        self.config == shape
    }
}

fn from_hub(name: &str) -> anyhow::Result<ModelFiles> {
    let (repository, revision) = resolve_repository(name).map_err(|error| match error {
        ModelError::UnknownModel { name, known } => {
            ModelError::UnknownModel { name, known: format!("{}, {known}", Toy::ALL.map(Toy::name).join(", ")) }
        }
        other => other,
    })?;
    let hub = Hub::from_env();
    let hub = if std::io::stderr().is_terminal() { hub.with_progress_bar() } else { hub };
    Ok(hub.fetch(&repository, &revision)?)
}
