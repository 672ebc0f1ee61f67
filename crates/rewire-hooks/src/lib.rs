//! Typed hook points of a transformer, and the hooks that record, probe and patch what passes through them.
//!
//! Use this crate when you write a model whose activations should be observable, or when you drive one that is:
//! `rewire-model` calls a [`Hook`] at every [`HookPoint`] of its one forward. Hooks know no model; they see a point and
//! the activation there, and return the activation that the run goes on with.
//!
//! | hook | does |
//! |---|---|
//! | `()` | nothing |
//! | [`Recorder`] | keeps the activations into an [`ActivationCache`] |
//! | [`GradientProbes`] | makes the gradient at the points it accepts readable after a backward pass |
//! | [`Patch`] | replaces activations, whole, under a mask, or of some heads ([`Patch::nodes`]) |
//! | [`edit`] | changes the activation at one point by a closure |
//! | `(a, b)` | `a`, then `b` on what `a` returned |
//!
//! Names are TransformerLens', both ways:
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
pub use point::{Axis, HookPoint, NormSite, ParseHookPointError, Site};
pub use probes::GradientProbes;
pub use recorder::Recorder;
pub use views::{Labeled, ResidualStream};
