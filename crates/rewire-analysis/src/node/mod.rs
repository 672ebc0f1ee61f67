//! Nodes: the parts of a model to intervene on, and their positions in the prompts.

mod check;
pub(crate) mod index;
pub(crate) mod kind;
pub(crate) mod notation;

pub use index::NodeIndex;
pub use kind::{By, Component, Node, NodeKind, Positions};
pub use notation::ParseNodeError;
