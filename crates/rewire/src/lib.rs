//! Find which parts of a transformer language model cause a behavior.
//!
//! Use this crate to load a language model, record and edit its activations, and measure how much
//! of a behavior runs through each head, layer, neuron, position and path. The effects are exact
//! (activation patching, path patching, ablation) or estimated from gradients (attribution
//! patching, integrated gradients).
//!
//! ```toml
//! [dependencies]
//! # Features: flex (default), ndarray, cuda, hub (default).
//! rewire = { path = "../rewire/crates/rewire" }
//!
//! # Without this, every tensor operation runs unoptimized.
//! [profile.dev]
//! opt-level = 3
//! ```
//!
//! ```
//! use rewire::prelude::*;
//!
//! // Or "gpt2", "owner/name@revision", or a directory.
//! let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
//! let pairs = model.pairs([Pair {
//!     clean: "When John and Mary went to the shops, John gave the bag to",
//!     corrupted: "When John and Mary went to the shops, Mary gave the bag to",
//!     answer: " Mary",
//!     wrong_answer: " John",
//! }])?;
//! let study = Study::new(&model, &pairs, LogitDiff::new(&pairs));
//! // An effect of 0 means as on the corrupted prompt, 1 as on the clean prompt.
//! let exact = study.patch([Component::HeadZ])?;
//! for node in exact.ranked().iter().take(3) {
//!     println!("{node}"); // L0H7 0.4185
//! }
//! # Ok::<(), rewire::Error>(())
//! ```
//!
//! This crate re-exports the other crates as modules: [`hooks`], [`model`], [`tasks`], [`node`],
//! [`run`], [`patching`], [`attribution`], [`integrated`], [`path`], [`heads`], [`stats`],
//! [`report`], [`toy`], [`tensor`]. It also re-exports [`burn`] and [`ndarray`], because their
//! types appear in signatures.
#![forbid(unsafe_code)]

mod error;
mod input;
mod language_model;
pub mod prelude;
mod pretrained;
mod study;

pub use burn;
pub use ndarray;
pub use rewire_analysis::{
    self as analysis, Align, AnalysisError, Baselines, Effects, Method, Outcome, RankedNode, attribution, edges, heads,
    integrated, node, patching, path, run, stats,
};
pub use rewire_hooks as hooks;
pub use rewire_model as model;
pub use rewire_report as report;
pub use rewire_tasks as tasks;
pub use rewire_tensor as tensor;
pub use rewire_toy as toy;

pub use error::Error;
pub use input::Input;
pub use language_model::{LanguageModel, Pair};
pub use pretrained::Pretrained;
pub use study::Study;

/// The Rust examples of the README and the guide, compiled and run as doctests.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../README.md")]
    pub struct Readme;
    #[doc = include_str!("../../../docs/guide/install.md")]
    pub struct Install;
    #[doc = include_str!("../../../docs/guide/your-own-prompts.md")]
    pub struct YourOwnPrompts;
}

/// The fastest CPU backend.
#[cfg(feature = "flex")]
pub type Cpu = burn::backend::Flex;
