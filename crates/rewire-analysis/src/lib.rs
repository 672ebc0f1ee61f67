//! Finds which parts of a model a behavior runs through: exactly by patching, or approximately by
//! gradients.
//!
//! Use this crate to ask of every head, layer and position of a model how much of a
//! [`Metric`](rewire_tasks::Metric) runs through it, over a set of
//! [`PromptPairs`](rewire_tasks::PromptPairs). [`patching`] patches and ablates nodes exactly,
//! alone or in groups. [`attribution`] estimates all effects from one backward pass. [`integrated`]
//! attributes along a line of activations, with the completeness gap in the result. [`path`]
//! follows paths through chosen receivers. [`edges`] has every edge between components. [`heads`]
//! measures single heads. [`stats`] compares methods and gives intervals. [`node`] defines the
//! nodes to intervene on. [`run`] has the question, the execution settings and the steps that all
//! analyses share.
//!
//! ```
//! use burn::backend::{Autodiff, Flex};
//! use rewire_analysis::node::{Component, NodeKind};
//! use rewire_analysis::patching::activation_patching;
//! use rewire_analysis::run::{Direction, Execution, Question};
//! use rewire_tasks::{LogitDiff, ioi::demo_pairs};
//! use rewire_toy::Toy;
//!
//! let model = Toy::Gpt2.load::<Flex>(&Default::default()).unwrap();
//! let tokenizer = Toy::Gpt2.tokenizer().unwrap();
//! let pairs = demo_pairs(&tokenizer, model.config().bos_token).unwrap();
//!
//! let heads = [NodeKind::all(Component::HeadZ)];
//! let metric = LogitDiff::new(&pairs);
//! let question = Question::new(&pairs, &metric);
//! let outcome =
//!     activation_patching(&model, question, &heads, Direction::Denoising, &Execution::default())
//!         .unwrap();
//! let effect = outcome.effects[0].mean(); // [layer, head]: 0 corrupted, 1 clean
//! assert_eq!(effect.shape(), [4, 8]);
//! assert!(effect.iter().any(|e| *e > 0.2));
//! ```
#![forbid(unsafe_code)]

mod effects;
mod error;
mod ranking;

pub mod attribution;
pub mod edges;
pub mod heads;
pub mod integrated;
pub mod node;
pub mod patching;
pub mod path;
pub mod run;
pub mod stats;

pub use effects::{Align, Baselines, Effects, Method, Outcome, Reduce};
pub use error::AnalysisError;
pub use ranking::RankedNode;
