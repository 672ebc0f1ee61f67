//! Reproductions of published analyses, and the search for circuits of edges, as functions that
//! return data.
//!
//! The functions do not print, parse flags or write files. A [`Setup`] sets the memory budget and
//! the functions that receive the progress.
//!
//! ```
//! use burn::backend::Flex;
//! use rewire_studies::{Setup, facts};
//! use rewire_toy::Toy;
//!
//! let model = Toy::Gpt2.load::<Flex>(&Default::default()).unwrap();
//! let (tokenizer, bos) = (Toy::Gpt2.tokenizer().unwrap(), model.config().bos_token);
//! let pairs = facts::pairs(&tokenizer, bos, 0).unwrap().pairs;
//! let found = facts::analyze(&model, &Setup::default(), &tokenizer, bos, pairs).unwrap();
//! let known = found.facts.iter().filter(|fact| fact.rank == 1).count();
//! println!("{known} of {} landmarks are followed by their city", found.facts.len());
//! # assert!(known > 0);
//! ```
#![forbid(unsafe_code)]

mod check;
mod error;
mod setup;

pub mod edge_circuit;
pub mod facts;
pub mod integrated_gradients;
pub mod ioi;
pub mod pythia;

pub use check::{Check, Verdict};
pub use error::StudyError;
pub use setup::{Progress, Setup};

use rewire_model::TransformerConfig;

/// Names the model if a source document makes choices for it, such as lists of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownModel {
    /// GPT-2 small.
    Gpt2Small,
    /// Any other model.
    Other,
}

impl KnownModel {
    /// Returns the model that has this configuration.
    #[must_use]
    pub fn of(config: &TransformerConfig) -> Self {
        let gpt2 = TransformerConfig::gpt2(12, 12, 768, 50_257, 1024);
        match *config == (TransformerConfig { bos_token: config.bos_token, ..gpt2 }) {
            true => KnownModel::Gpt2Small,
            false => KnownModel::Other,
        }
    }
}
