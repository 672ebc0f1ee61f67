//! Two small embedded transformers that do indirect object identification and know a few facts.
//! They let everything in Rewire run offline, out of the box.
//!
//! Use this crate to get a model without a download, or to train a similar model ([`train()`]). The
//! two models differ as GPT-2 and Pythia do: [`Toy::Gpt2`] has sequential blocks and learned
//! positions, [`Toy::NeoX`] has parallel blocks and rotary positions. This crate trained both, on
//! the generator in [`rewire_tasks::ioi`] and on [`rewire_tasks::facts`]. The demo's pairs of
//! names, a tenth of all other pairs and a tenth of the sentences were held out.
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
