//! Statistics of effects: correlations, intervals, family-wise tests, agreement of two methods.

pub(crate) mod agreement;
pub(crate) mod bootstrap;
pub(crate) mod comparison;
pub(crate) mod correlation;
pub(crate) mod family;
pub(crate) mod proportion;
pub(crate) mod span;
pub(crate) mod student;

pub use agreement::{Agreement, NodeError};
pub use bootstrap::{Bootstrap, FEWEST_FOR_BOOTSTRAP, IntervalKind, Intervals};
pub use comparison::{Comparison, MeanDifference, top_by_size};
pub use correlation::{pearson, r_squared, regression, slope, spearman};
pub use family::{Family, SignFlips};
pub use proportion::Proportion;
pub use span::{Span, SpanVerdict, Warning};
