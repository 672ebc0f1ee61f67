//! Integrated gradients: attributions along a line of activations, with their completeness gap.

pub(crate) mod curves;
pub(crate) mod gradients;
pub(crate) mod line;
pub(crate) mod lines;
pub(crate) mod quadrature;
pub(crate) mod rule;

pub use curves::{Curves, interpolation_curves};
pub use gradients::{Completeness, DEFAULT_TOLERANCE, Integrated, IntegratedGradientsOptions, integrated_gradients};
pub use lines::LineScope;
pub use quadrature::{Quadrature, QuadratureNode, QuadratureNodes};
pub use rule::Rule;
