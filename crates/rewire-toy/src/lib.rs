//! Two small transformers that really do indirect object identification, and a few facts: embedded, so that everything
//! Rewire does can be done offline, out of the box.
//!
//! Use this crate to have a model at hand without downloading one, or to train another like it ([`train()`]). The two
//! differ as GPT-2 and Pythia do: [`Toy::Gpt2`] has sequential blocks and learned positions, [`Toy::NeoX`] parallel blocks
//! and rotary ones. Both were trained by this crate, on [`rewire_tasks::ioi`]'s generator and [`rewire_tasks::facts`]; the
//! demo's pairs of names and a tenth of all others were held out, as was a tenth of the sentences.
//!
//! ```
//! use rewire_toy::Toy;
//!
//! let device = Default::default();
//! let model = Toy::Gpt2.load::<burn::backend::Flex>(&device).unwrap();
//! let tokenizer = Toy::Gpt2.tokenizer().unwrap();
//! assert_eq!(model.config().n_layers, 4);
//! assert_eq!(tokenizer.decode(&[tokenizer.single_token(" Mary").unwrap()]), " Mary");
//! ```
#![forbid(unsafe_code)]

mod bpe;
mod corpus;
mod evaluate;
mod save;
mod train;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use burn::tensor::backend::Backend;
use rewire_model::{ModelError, ModelFiles, Transformer};
use rewire_tasks::{Tokenizer, TokenizerError};

pub use evaluate::{IoiScore, score_ioi};
pub use save::{MODEL_FILES, SaveError, save, save_weights};
pub use train::{LossPoint, Manifest, TrainError, Trained, TrainingOptions, train};

/// An embedded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Toy {
    /// `toy-gpt2`: 4 layers, 8 heads, sequential blocks, learned positions, tied unembedding.
    Gpt2,
    /// `toy-neox`: 4 layers, 8 heads, parallel blocks, rotary positions, untied unembedding.
    NeoX,
}

/// The files of an embedded model.
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
    /// Both.
    pub const ALL: [Toy; 2] = [Toy::Gpt2, Toy::NeoX];

    /// `toy-gpt2` or `toy-neox`.
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

    /// The model's files, in Hugging Face layout.
    #[must_use]
    pub fn files(self) -> ModelFiles {
        let [config, weights, tokenizer, _] = self.contents();
        ModelFiles::embedded(self.name(), config, weights, Some(tokenizer))
    }

    /// The model, its weights as trained.
    ///
    /// # Errors
    /// [`ModelError`], if the embedded files are damaged.
    pub fn load<B: Backend>(self, device: &B::Device) -> Result<Transformer<B>, ModelError> {
        Transformer::load(&self.files(), device)
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError`], if the embedded file is damaged.
    pub fn tokenizer(self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_bytes(self.contents()[2], &Path::new(self.name()).join("tokenizer.json"))
    }

    /// How the model was trained, and how well it does.
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
        found.ok_or_else(|| format!("`{name}` is no embedded model; there are toy-gpt2 and toy-neox"))
    }
}
