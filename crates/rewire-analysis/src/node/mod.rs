//! What is intervened on: nodes of the model, and which of their positions.

pub(crate) mod kind;

pub use kind::{By, Component, Node, NodeKind, ParseNodeError, Positions};
