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
mod manifest;
mod save;
mod toy;
mod train;

pub use evaluate::{IoiScore, score_ioi};
pub use manifest::{LossPoint, Manifest, TrainingOptions};
pub use save::{MODEL_FILES, SaveError, save};
pub use toy::Toy;
pub use train::{TrainError, Trained, train};
