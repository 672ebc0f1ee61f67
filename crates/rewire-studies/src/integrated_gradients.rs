//! The comparison of integrated gradients with activation patching, and of both with ablation.
//!
//! [`Prompts::new`] makes the prompts, and [`analyze`] compares the methods on them. [`checks`]
//! compares the figures that the notebook prints for GPT-2 small with ours.

mod ablate;
mod analyze;
mod averaged;
mod checks;
mod curves;
mod incomplete;
mod literal;
mod printed;
mod printed_curves;
mod prompts;
mod settings;
mod study;

pub use ablate::{Ablations, Correlations, INTERVENTIONS, NEW_TOKENS};
pub use analyze::{BASELINES, Compared, HEADS, KINDS, Lines, NEURONS, TOP, flat, shares};
pub use averaged::{Averaged, FIGURES, Mean, PairCorrelations};
pub use checks::{Aside, asides, checks};
pub use curves::{Contrasted, Drawn};
pub use literal::{literal_first_node, literal_first_node_backward, literal_means};
pub use printed::{ACCURACY, ACCURACY_WITHOUT, MEAN_ABLATION, OUTLIERS, ZERO_ABLATION};
pub use prompts::{Prompts, REFERENCE};
pub use settings::Settings;
pub use study::{Found, analyze};
