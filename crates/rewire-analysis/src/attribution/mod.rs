//! Attribution patching: effects of nodes and of edges between heads, estimated from one backward
//! pass, or from several (AtP*).

pub(crate) mod attention;
pub(crate) mod edges;
pub(crate) mod estimator;
pub(crate) mod grad_drop;
pub(crate) mod groups;
pub(crate) mod linearize;
pub(crate) mod lone_keys;
pub(crate) mod nodes;
pub(crate) mod norm_jacobian;
pub(crate) mod pending_sum;
pub(crate) mod products;
pub(crate) mod qk_fix;
pub(crate) mod shared_keys;
pub(crate) mod slope;

pub use attention::attention_attribution;
pub use edges::{EdgeAttribution, EdgeAttributionOptions};
pub use estimator::{Estimator, GradientPaths, PatternChange};
pub use groups::attribute_groups;
pub use nodes::{attribution_patching, attribution_patching_by, attribution_patching_with_edges, edge_attribution};
pub use norm_jacobian::NormJacobian;
