//! Path patching: what a node does to the metric along the paths through chosen receivers alone.

mod adding;
mod carry;
mod edges;
mod entering;
mod literal;
mod plan;
mod policy;
mod reach;
mod receive;
mod receiver;
mod setting;
mod sweep;

pub use edges::{Edge, HeadEdges, head_edges};
pub use literal::{PathRun, patch_path};
pub use policy::{FreezePolicy, Frozen, HeldAttention, Taking};
pub use receiver::{Input, ParseReceiverError, Receiver};
pub use sweep::{Path, PathPatching, patch_paths, path_patching, path_patching_cost};
