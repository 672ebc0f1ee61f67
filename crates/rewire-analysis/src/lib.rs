//! Which parts of a model a behaviour runs through: exactly, by patching, and by gradients, all at once.
//!
//! Use this crate to ask of every head, layer and position of a model how much of a [`Metric`](rewire_tasks::Metric) runs
//! through it, over a set of [`PromptPairs`](rewire_tasks::PromptPairs). [`activation_patching`] runs what each node can
//! change once more, [`patch_groups`] the same for nodes together; [`attribution_patching`] estimates it from one backward
//! pass, [`Agreement`] says how well, and [`screen_then_verify`] does the cheap one first and the exact one where it matters.
//! [`integrated_gradients`] attributes along a line of activations, with the completeness gap in the result; [`ablation`] removes
//! nodes, [`answer_accuracy`] says how often the model still answers right, [`interpolation_curves`] how it gets from one to the
//! other.
//!
//! ```
//! use burn::backend::{Autodiff, Flex};
//! use rewire_analysis::node::{Component, NodeKind};
//! use rewire_analysis::patching::activation_patching;
//! use rewire_analysis::run::Options;
//! use rewire_tasks::{LogitDiff, ioi::demo_pairs};
//! use rewire_toy::Toy;
//!
//! let model = Toy::Gpt2.load::<Flex>(&Default::default()).unwrap();
//! let tokenizer = Toy::Gpt2.tokenizer().unwrap();
//! let pairs = demo_pairs(&tokenizer, model.config().bos_token).unwrap();
//!
//! let heads = [NodeKind::all(Component::HeadZ)];
//! let outcome = activation_patching(&model, &pairs, &LogitDiff::new(&pairs), &heads, &Options::default()).unwrap();
//! let effect = outcome.effects[0].mean(); // [layer, head], 0 = as corrupted, 1 = as clean
//! assert_eq!(effect.shape(), [4, 8]);
//! assert!(effect.iter().any(|e| *e > 0.2));
//! ```
#![forbid(unsafe_code)]

mod effects;
mod error;
mod ranking;

pub mod attribution;
pub mod heads;
pub mod integrated;
pub mod node;
pub mod patching;
pub mod path;
pub mod run;
pub mod stats;

pub use effects::{Baselines, Effects, Method, Outcome};
pub use error::AnalysisError;
pub use ranking::RankedNode;
