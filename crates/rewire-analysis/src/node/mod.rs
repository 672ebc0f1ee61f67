//! What is intervened on: nodes of the model, and which of their positions.

mod check;
pub(crate) mod index;
pub(crate) mod kind;

pub use index::NodeIndex;
pub use kind::{By, Component, Node, NodeKind, ParseNodeError, Positions};
