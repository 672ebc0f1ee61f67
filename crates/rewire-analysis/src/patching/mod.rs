//! Activation patching and ablation: exact effects of nodes, one at a time or in groups.

pub(crate) mod ablation;
pub(crate) mod accuracy;
pub(crate) mod cost;
pub(crate) mod delta;
pub(crate) mod engine;
pub(crate) mod groups;
pub(crate) mod list;
pub(crate) mod plan;
pub(crate) mod reference;
pub(crate) mod screen;

pub use ablation::{ablate_groups, ablation};
pub use accuracy::{Ablated, AnswerAccuracy, answer_accuracy};
pub use cost::{Cost, activation_patching_cost, attribution_patching_cost, forward_cost, integrated_gradients_cost};
pub use engine::activation_patching;
pub use groups::{GroupOutcome, patch_groups};
pub use list::NodeList;
pub use screen::{Screened, screen_then_verify};
