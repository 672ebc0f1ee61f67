//! Integrated gradients: attributions along a line of activations, with their completeness gap.

pub(crate) mod completeness;
pub(crate) mod curves;
pub(crate) mod gradients;
pub(crate) mod line;
pub(crate) mod lines;
pub(crate) mod panels;
pub(crate) mod quadrature;
pub(crate) mod rule;

pub use completeness::{Completeness, GapPolicy, Integrated, Missed};
pub use curves::{Curves, interpolation_curves};
pub use gradients::{DEFAULT_PANELS, DEFAULT_TOLERANCE, IntegratedGradientsOptions, integrated_gradients};
pub use lines::LineScope;
pub use quadrature::{Quadrature, QuadratureNode, QuadratureNodes};
pub use rule::Rule;
