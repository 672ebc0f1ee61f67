//! Attribution patching: effects of nodes and of edges between heads, estimated from one backward
//! pass.

pub(crate) mod attention;
pub(crate) mod edges;
pub(crate) mod groups;
pub(crate) mod linearize;
pub(crate) mod nodes;
pub(crate) mod pending_sum;
pub(crate) mod slope;

pub use attention::attention_attribution;
pub use edges::{EdgeAttribution, EdgeAttributionOptions, NormJacobian};
pub use groups::attribute_groups;
pub use nodes::{attribution_patching, attribution_patching_with_edges, edge_attribution};
