//! Effects of edges: how much of a behavior runs through each connection from a component's output
//! to a later component's input.
//!
//! [`EdgeGraph`] lists the writers, readers and edges of a model. [`patch_all_edges`] patches every
//! edge exactly. [`attribute_all_edges`] estimates all edges from gradients (EAP, EAP-IG).
//! [`verify_edges`] compares several estimates with exact effects.
//! [`evaluate_circuits`] runs the model with only the edges of a circuit ([`EdgeSet`]).

pub(crate) mod agreement;
pub(crate) mod attribution;
mod carried;
pub(crate) mod edge_set;
pub(crate) mod effects;
pub(crate) mod evaluate;
pub(crate) mod graph;
mod inside;
pub(crate) mod notation;
pub(crate) mod patching;
pub(crate) mod readers;
pub(crate) mod suggest;
pub(crate) mod verify;

pub use agreement::{EdgeAgreement, EdgeError, ErrorShare, TopEdges};
pub use attribution::{GradientsAt, attribute_all_edges, attribute_edges};
pub use edge_set::EdgeSet;
pub use effects::{EdgeEffects, largest};
pub use evaluate::{CircuitOutcome, CircuitRuns, evaluate_circuits};
pub use graph::{BlockOrder, Edge, EdgeGraph, Reader, Writer};
pub use notation::ParseEdgeError;
pub use patching::{edge_patching_cost, patch_all_edges, patch_edges};
pub use verify::{EdgeEstimate, VerifiedEdges, verify_edges};
