//! Reproductions of published analyses, as functions that return data.
//!
//! Nothing here prints, parses flags or writes files: a [`Setup`] says how much memory may be used
//! and who is told of the progress.
//!
//! ```
//! use burn::backend::Flex;
//! use rewire_studies::Setup;
//! use rewire_toy::Toy;
//!
//! let model = Toy::Gpt2.load::<Flex>(&Default::default()).unwrap();
//! let options = Setup::default().options(&model, 15);
//! assert_eq!(options.prompt_batch, 32);
//! ```
#![forbid(unsafe_code)]

mod check;
mod error;
mod setup;

pub mod facts;
pub mod integrated_gradients;
pub mod ioi;
pub mod pythia;

pub use check::{Check, Verdict};
pub use error::StudyError;
pub use setup::{Progress, Setup};

/// Whether a model is the one that a document's own choices are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownModel {
    /// GPT-2 small.
    Gpt2Small,
    /// Another.
    Other,
}
