//! Typed hook points of a transformer, and hooks that record, probe, edit and patch the activations
//! there.
//!
//! Use this crate to write a model whose activations can be observed, or to observe such a model:
//! `rewire-model` calls a [`Hook`] at every [`HookPoint`] of its one forward. Hooks depend on no
//! model. A hook takes a point and the activation there, and returns the activation with which the
//! run continues.
//!
//! | hook | does |
//! |---|---|
//! | `()` | nothing |
//! | [`Recorder`] | records activations into an [`ActivationCache`] |
//! | [`GradientProbes`] | returns the gradients at hook points after a backward pass |
//! | [`Patch`] | replaces whole activations, masked elements, or some heads ([`Patch::nodes`]) |
//! | [`edit`] | edits the activation at one point with a closure |
//! | `(a, b)` | applies `a`, then `b` to the result of `a` |
//!
//! Hook points are written and parsed under TransformerLens' names:
//!
//! ```
//! use rewire_hooks::{HookPoint, Site};
//!
//! let point: HookPoint = "blocks.3.attn.hook_q".parse().unwrap();
//! assert_eq!(point, HookPoint::Block { layer: 3, site: Site::Q });
//! assert_eq!(point.to_string(), "blocks.3.attn.hook_q");
//! ```
#![forbid(unsafe_code)]

mod any_rank;
mod cache;
mod edit;
mod head;
mod hook;
mod patch;
mod point;
mod probes;
mod recorder;
mod views;

pub use any_rank::{AnyMask, AnyRank};
pub use cache::{ActivationCache, CacheError};
pub use edit::{Edit, edit};
pub use head::{Head, HeadPoint, ParseHeadError};
pub use hook::Hook;
pub use patch::{Patch, PatchError};
pub use point::{Axis, HookPoint, NormKind, NormSite, ParseHookPointError, Site};
pub use probes::GradientProbes;
pub use recorder::Recorder;
pub use views::{Labeled, ResidualStream};
