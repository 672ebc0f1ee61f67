//! Integrated gradients: attributions along a line of activations, with their completeness gap.

pub(crate) mod curves;
pub(crate) mod gradients;
pub(crate) mod line;
pub(crate) mod lines;
pub(crate) mod quadrature;

pub use curves::{Curves, interpolation_curves};
pub use gradients::{
    Completeness, DEFAULT_TOLERANCE, Integrated, PathIntegral, Together, integrated_gradients, literal_first_node,
    literal_first_node_backward,
};
pub use quadrature::{Quadrature, QuadratureNode, Rule};
