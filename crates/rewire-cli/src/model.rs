//! The model that a command runs on: embedded, from a directory, or from the hub.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::OnceLock;

use anyhow::{Context, bail};
use burn::tensor::backend::Backend;
use clap::{Args, ValueEnum};
use rewire_input::{cut, quoted};
use rewire_model::{
    Hub, ModelError, ModelFiles, Transformer, TransformerConfig, WeightProcessing, WeightStorage, packaged_directory,
    resolve_repository,
};
use rewire_store::sha256;
use rewire_studies::KnownModel;
use rewire_tasks::{ChangedText, Surrounding, Tokenizer};
use rewire_toy::Toy;
use serde_json::{Value, json};

use crate::arguments::BosChoice;
use crate::compute::MemoryArguments;
use crate::device::Device;
use crate::headings::{COMPUTE, MODEL};
use crate::output::say;
use crate::weights::WeightsChoice;

/// The flags of every command that runs a model.
#[derive(Args)]
pub(crate) struct ModelArguments {
    /// Name, directory or GGUF file of the model.
    ///
    /// toy-gpt2 and toy-neox are in this program. gpt2, gpt2-medium, .., pythia-160m, .. and
    /// owner/name come from the hub, each with an optional @revision. FILE.gguf is a file on disk,
    /// and owner/name:FILE.gguf a file of a repository. `rewire models` lists the names.
    #[arg(long, default_value = "toy-gpt2", value_name = "NAME|DIR|FILE", help_heading = MODEL)]
    pub(crate) model: String,
    /// Device: auto, flex, ndarray, cuda or cuda:N.
    #[arg(long, default_value = "auto", help_heading = COMPUTE)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) memory: MemoryArguments,
    /// Where the weights are: auto, float32 or stored.
    ///
    /// float32: in memory, 4 bytes per weight. stored: in the model's mapped files, in the type
    /// that they have there; each matrix is converted to float32 when it is used, which takes less
    /// memory and more time. auto: stored if float32 would take more than three quarters of the
    /// free memory. The results are the same, bit for bit.
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        value_name = "WHERE",
        help_heading = COMPUTE
    )]
    pub(crate) weights: WeightsChoice,
    /// Use the weights as they are in the files: fold and center none.
    #[arg(long, help_heading = MODEL)]
    pub(crate) no_process_weights: bool,
    /// BOS before text: default, prepend or none.
    ///
    /// prepend puts it in front of every text; none leaves it out; default prepends it if the model
    /// has one. Prompts of token ids never get a BOS.
    #[arg(
        long,
        value_enum,
        default_value = "default",
        hide_possible_values = true,
        value_name = "CHOICE",
        help_heading = MODEL
    )]
    pub(crate) bos: BosChoice,
}

/// A model's files, with the configuration and the tokenizer read, and the weights not yet.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) files: ModelFiles,
    pub(crate) config: TransformerConfig,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) storage: WeightStorage,
    processing: WeightProcessing,
    bos: BosChoice,
    /// Warnings about the weights, once they are loaded.
    of_weights: OnceLock<Vec<String>>,
    /// The SHA-256 of the model's files, once they are known.
    sha256s: OnceLock<BTreeMap<String, String>>,
}

impl Source {
    /// Finds the model. A model from the hub is downloaded if it is not in the cache.
    pub(crate) fn open(arguments: &ModelArguments) -> anyhow::Result<Self> {
        let name = &arguments.model;
        let files = if let Ok(toy) = name.parse::<Toy>() {
            toy.files()
        } else if let Some(files) = ModelFiles::on_disk(name)? {
            files
        } else {
            from_hub(name)?
        };
        let config = files.config()?;
        let tokenizer = files.tokenizer()?.map(|(path, bytes)| Tokenizer::from_bytes(&bytes, &path)).transpose()?;
        let processing = match arguments.no_process_weights {
            true => WeightProcessing::none(),
            false => WeightProcessing::default(),
        };
        let bos = arguments.bos;
        if bos == BosChoice::Prepend && config.bos_token.is_none() {
            bail!("--bos prepend: {name} has no BOS (bos_token_id is null in its config.json); use --bos none");
        }
        let storage = arguments.weights.storage(arguments.device.resolve(), &files, &config)?;
        let (of_weights, sha256s) = (OnceLock::new(), OnceLock::new());
        Ok(Self { name: name.clone(), files, config, tokenizer, storage, processing, bos, of_weights, sha256s })
    }

    /// Returns the tokenizer, for commands that generate text.
    ///
    /// # Errors
    /// If the model has none.
    pub(crate) fn tokenizer(&self) -> anyhow::Result<&Tokenizer> {
        self.tokenizer.as_ref().with_context(|| {
            format!("the model {} has no tokenizer.json, nor both vocab.json and merges.txt", self.name)
        })
    }

    /// Returns the BOS that text begins with, if any.
    pub(crate) fn bos(&self) -> Option<u32> {
        self.config.bos_token.filter(|_| self.bos != BosChoice::None)
    }

    /// Returns the BOS that text begins with, for commands that generate text.
    ///
    /// # Errors
    /// If it is outside the vocabulary.
    pub(crate) fn bos_for_text(&self) -> anyhow::Result<Option<u32>> {
        let d_vocab = self.config.d_vocab;
        match self.bos() {
            Some(bos) if bos as usize >= d_vocab => bail!(
                "the BOS of {} has id {bos}, outside the vocabulary of {d_vocab}; use --bos none or correct \
                 bos_token_id in config.json",
                self.name
            ),
            bos => Ok(bos),
        }
    }

    /// Returns a sentence on the BOS of text and its reason. `None` if the model has no tokenizer.
    pub(crate) fn beginning(&self) -> Option<String> {
        let tokenizer = self.tokenizer.as_ref()?;
        let begins = match (self.bos(), self.bos) {
            (Some(bos), BosChoice::Prepend) => format!("text begins with {} (--bos prepend)", named(tokenizer, bos)),
            (Some(bos), _) => {
                format!("text begins with {} (the model's default; --bos none leaves it out)", named(tokenizer, bos))
            }
            (None, BosChoice::None) => "text begins without BOS (--bos none)".to_owned(),
            (None, _) => "text begins without BOS (bos_token_id is null in config.json)".to_owned(),
        };
        Some(format!("{begins}; token ids are used as they are"))
    }

    /// Returns the BOS of text, for `effects.json`.
    pub(crate) fn tokenization(&self) -> Value {
        let choice = self.bos.to_possible_value().map(|value| value.get_name().to_owned());
        let token = self.bos().map(
            |bos| json!({ "id": bos, "token": self.tokenizer.as_ref().map(|tokenizer| tokenizer.decode(&[bos])) }),
        );
        json!({ "bos": choice, "text_begins_with": token })
    }

    /// Returns warnings about the weights, if they are loaded, the tokenizer, and the texts that it
    /// has tokenized.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.of_weights.get().cloned().unwrap_or_default();
        let Some(tokenizer) = &self.tokenizer else { return warnings };
        let Surrounding { before, after } = tokenizer.surrounding().unwrap_or_default();
        let ours: Vec<u32> = self.bos().into_iter().collect();
        let adds = !before.is_empty() || !after.is_empty();
        if adds && (before != ours || !after.is_empty()) {
            let list = |tokens: &[u32]| match tokens {
                [] => "nothing".to_owned(),
                _ => tokens.iter().map(|&token| named(tokenizer, token)).collect::<Vec<_>>().join(" "),
            };
            warnings.push(format!(
                "tokenizer.json (post_processor) puts {} before a text and {} after it; Rewire puts {} before a text \
                 and nothing after it",
                list(&before),
                list(&after),
                list(&ours)
            ));
        }
        if let Some(ChangedText { text, spelled }) = tokenizer.changed_text() {
            warnings.push(format!(
                "the tokenizer changes text: {} became {}; positions and token names refer to the changed text",
                quoted(text),
                quoted(spelled)
            ));
        }
        warnings
    }

    /// Loads the weights, and processes them unless `--no-process-weights` is given. The first call
    /// prints warnings about the weights to standard error.
    pub(crate) fn load<B: Backend>(&self, device: &B::Device) -> Result<Transformer<B>, ModelError> {
        let (model, warnings) = Transformer::load_in(&self.files, self.storage, device)?;
        self.of_weights.get_or_init(|| {
            let lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            lines.iter().for_each(|line| say(&format!("warning: {line}")));
            lines
        });
        Ok(model.processed(self.processing))
    }

    /// Returns the SHA-256 of `config.json` and of each weight file, by the name of the file. The
    /// first call reads the files.
    pub(crate) fn sha256s(&self) -> Result<&BTreeMap<String, String>, ModelError> {
        match self.sha256s.get() {
            Some(known) => Ok(known),
            None => {
                let read = self.files.sha256s()?;
                Ok(self.sha256s.get_or_init(|| read))
            }
        }
    }

    /// Returns the SHA-256 of the tokenizer's `tokenizer.json`, or `None` if there is no tokenizer.
    pub(crate) fn tokenizer_sha256(&self) -> Result<Option<String>, ModelError> {
        Ok(self.files.tokenizer()?.map(|(_, bytes)| sha256(&bytes)))
    }

    /// Returns whether weights are processed.
    pub(crate) fn is_processed(&self) -> bool {
        self.processing != WeightProcessing::none()
    }

    /// Returns one line on the model, for the head of a report.
    pub(crate) fn subtitle(&self, device: Device) -> String {
        let TransformerConfig { n_layers, n_heads, d_mlp, .. } = self.config;
        let weights = if self.is_processed() { "processed" } else { "unprocessed" };
        format!(
            "{}: {n_layers} layers, {n_heads} heads and {d_mlp} neurons per layer · {} · {weights} weights",
            self.name, device
        )
    }

    /// Returns whether the model has the shape of GPT-2 small.
    pub(crate) fn is_gpt2_small(&self) -> bool {
        KnownModel::of(&self.config) == KnownModel::Gpt2Small
    }
}

/// Returns the text of a token, or its id if it has no text.
fn named(tokenizer: &Tokenizer, token: u32) -> String {
    match tokenizer.decode(&[token]) {
        text if text.is_empty() => format!("token {token}"),
        text => cut(&text),
    }
}

fn from_hub(name: &str) -> anyhow::Result<ModelFiles> {
    if let Some(directory) = packaged_directory(name)? {
        return Ok(ModelFiles::directory(&directory)?);
    }
    let (repository, revision) = resolve_repository(name).map_err(|error| match error {
        ModelError::UnknownModel { name, known } => {
            ModelError::UnknownModel { name, known: format!("{}, {known}", Toy::ALL.map(Toy::name).join(", ")) }
        }
        other => other,
    })?;
    let hub = Hub::from_env().with_notices(say);
    let hub = if std::io::stderr().is_terminal() { hub.with_progress_bar() } else { hub };
    Ok(hub.fetch(&repository, &revision)?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        model: ModelArguments,
    }

    #[test]
    fn bos_does_not_depend_on_the_model_name() {
        let directory = tempfile::tempdir().unwrap();
        let pythia = TransformerConfig { bos_token: Some(0), ..TransformerConfig::neox(12, 12, 768, 50_304, 2048) };
        for name in ["pythia-160m", "pythia-160m@step3000", "pythia-160m@step143000", "mine"] {
            let model = directory.path().join(name);
            std::fs::create_dir(&model).unwrap();
            std::fs::write(model.join("config.json"), pythia.to_hugging_face().to_string()).unwrap();
            std::fs::write(model.join("model.safetensors"), "").unwrap();
            let open = |bos: &str| {
                let path = model.to_str().unwrap();
                Source::open(&Command::parse_from(["xtask", "--model", path, "--bos", bos]).model).unwrap()
            };
            assert_eq!(["default", "prepend", "none"].map(|bos| open(bos).bos()), [Some(0), Some(0), None], "{name}");
        }
    }
}
