//! The embedded models.

use burn::tensor::backend::Backend;
use rewire_model::{ModelError, ModelFiles, Transformer};
use rewire_tasks::{Tokenizer, TokenizerError};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::manifest::Manifest;

/// An embedded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Toy {
    /// `toy-gpt2`: 4 layers, 8 heads, sequential blocks, learned positions, tied unembedding.
    Gpt2,
    /// `toy-neox`: 4 layers, 8 heads, parallel blocks, rotary positions, untied unembedding.
    NeoX,
}

/// Embeds the files of a model.
macro_rules! embedded {
    ($name:literal) => {
        [
            include_bytes!(concat!("../models/", $name, "/config.json")).as_slice(),
            include_bytes!(concat!("../models/", $name, "/model.safetensors")).as_slice(),
            include_bytes!(concat!("../models/", $name, "/tokenizer.json")).as_slice(),
            include_bytes!(concat!("../models/", $name, "/training.json")).as_slice(),
        ]
    };
}

impl Toy {
    /// Both embedded models.
    pub const ALL: [Toy; 2] = [Toy::Gpt2, Toy::NeoX];

    /// Returns the model's name: `toy-gpt2` or `toy-neox`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Toy::Gpt2 => "toy-gpt2",
            Toy::NeoX => "toy-neox",
        }
    }

    fn contents(self) -> [&'static [u8]; 4] {
        match self {
            Toy::Gpt2 => embedded!("toy-gpt2"),
            Toy::NeoX => embedded!("toy-neox"),
        }
    }

    /// Returns the model's files, in Hugging Face layout.
    #[must_use]
    pub fn files(self) -> ModelFiles {
        let [config, weights, tokenizer, _] = self.contents();
        ModelFiles::embedded(self.name(), config, weights, Some(tokenizer))
    }

    /// Loads the model with its weights as trained.
    ///
    /// # Errors
    /// [`ModelError`], if the embedded files are damaged.
    pub fn load<B: Backend>(self, device: &B::Device) -> Result<Transformer<B>, ModelError> {
        Transformer::load(&self.files(), device)
    }

    /// Returns the model's tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError`], if the embedded file is damaged.
    pub fn tokenizer(self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_bytes(self.contents()[2], &Path::new(self.name()).join("tokenizer.json"))
    }

    /// Returns how the model was trained, and how well it performs.
    ///
    /// # Errors
    /// [`serde_json::Error`], if the embedded file is damaged.
    pub fn manifest(self) -> Result<Manifest, serde_json::Error> {
        serde_json::from_slice(self.contents()[3])
    }
}

impl fmt::Display for Toy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Toy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Toy::ALL.into_iter().find(|toy| toy.name() == name);
        found.ok_or_else(|| format!("`{name}` is not an embedded model; use toy-gpt2 or toy-neox"))
    }
}
