//! Path patching: the effect of a node along the paths through chosen receivers.

pub(crate) mod add_receivers;
pub(crate) mod edges;
pub(crate) mod ends;
pub(crate) mod entry_delta;
pub(crate) mod followed;
pub(crate) mod paths;
pub(crate) mod policy;
pub(crate) mod propagate;
pub(crate) mod reachability;
pub(crate) mod receiver;
pub(crate) mod reference;
pub(crate) mod schedule;
pub(crate) mod second_run;
pub(crate) mod sender_groups;
pub(crate) mod set_receivers;

pub use edges::{Edge, HeadEdges, head_edges};
pub use ends::Path;
pub use paths::{PathPatching, patch_paths, path_patching, path_patching_cost};
pub use policy::{FreezePolicy, ReceiverUpdate, Recompute};
pub use receiver::{Input, ParseReceiverError, Receiver};
pub use reference::{PathRun, patch_path};
pub use sender_groups::{GroupPaths, path_patch_groups};
