//! Attribution patching: effects of nodes and of edges between heads, estimated from one backward pass.

pub(crate) mod attention;
pub(crate) mod edges;
pub(crate) mod groups;
pub(crate) mod linearize;
pub(crate) mod nodes;
pub(crate) mod slope;

pub use attention::attention_attribution;
pub use edges::{HeadPaths, NormJacobian, PathOptions, PerPrompt};
pub use groups::attribute_groups;
pub use nodes::{attribution_patching, attribution_patching_with_head_paths, head_path_attribution};
