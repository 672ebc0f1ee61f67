//! The Pythia notebook, which finds the circuit for indirect object identification in steps.
//!
//! [`Sets::new`] draws the prompts, and [`analyze`] runs the notebook's steps and finds the
//! circuit. [`checks`] compares the printed figures with ours, for the notebook's own model.

mod analyze;
mod checks;
mod circuit;
mod data;
mod edges;
mod notebook;
mod reference;
mod settings;

pub use analyze::{Found, PARTS, analyze};
pub use checks::{checks, is_the_notebooks_model};
pub use circuit::{Circuit, Comparison, Member};
pub use data::{Data, Sets};
pub use edges::Edges;
pub use reference::{Kind, ReferencePrompts};
pub use settings::Settings;
