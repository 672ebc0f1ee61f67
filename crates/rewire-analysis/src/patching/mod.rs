//! Activation patching and ablation: exact effects of nodes, one at a time or in groups.

pub(crate) mod ablation;
pub(crate) mod accuracy;
pub(crate) mod chosen;
pub(crate) mod cost;
pub(crate) mod delta;
pub(crate) mod engine;
pub(crate) mod groups;
pub(crate) mod held;
pub(crate) mod list;
pub(crate) mod pass_cost;
pub(crate) mod plan;
pub(crate) mod reference;
pub(crate) mod screen;
pub(crate) mod skipped;

pub use crate::run::cost::Cost;
pub use ablation::{ablate_groups, ablation};
pub use accuracy::{Ablated, AnswerAccuracy, answer_accuracy};
pub use chosen::{PlacedNode, placed_effects, placed_nodes};
pub use cost::{activation_patching_cost, attribution_patching_cost, forward_cost, integrated_gradients_cost};
pub use engine::activation_patching;
pub use groups::{GroupOutcome, patch_groups};
pub use held::held_a_pair;
pub use list::NodeList;
pub use screen::{Screened, Verify, screen_then_verify, screen_then_verify_by};
pub use skipped::{FEWEST_SUBSETS, SkippedBound, SubsetSampling, bound_skipped};
