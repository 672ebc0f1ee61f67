//! What was found, and how the summary and the report show it.

use std::ops::Deref;

use ndarray::Array2;
use rewire_analysis::Effects;
use rewire_studies::facts::{self, Patched};

/// All that the report is made of.
pub(super) struct Found {
    pub(super) found: facts::Found,
    /// The tokens of each pair's prompts, both where they differ, each with its position.
    pub(super) labels: Vec<Vec<String>>,
    /// What is said of a pair that cannot be made.
    pub(super) left_out: Vec<String>,
    /// Warnings, one line each.
    pub(super) warnings: Vec<String>,
}

impl Deref for Found {
    type Target = facts::Found;

    fn deref(&self) -> &facts::Found {
        &self.found
    }
}

/// What the columns of [`next_rows`] are.
pub(super) const NEXT: [&str; 7] = ["rank", "clean", "logit", "probability", "corrupted", "logit", "probability"];

/// The likeliest next tokens of both prompts, side by side.
pub(super) fn next_rows(set: &Patched) -> Vec<Vec<String>> {
    let [clean, corrupted] = &set.next;
    let cells = |(token, logit, probability): &(String, f32, f32)| {
        [format!("{token:?}"), format!("{logit:.2}"), format!("{:.2}%", 100.0 * probability)]
    };
    let rows = clean.likeliest.iter().zip(&corrupted.likeliest).enumerate();
    rows.map(|(rank, (clean, corrupted))| {
        [(rank + 1).to_string()].into_iter().chain(cells(clean)).chain(cells(corrupted)).collect()
    })
    .collect()
}

/// A kind's effects, `[layer, position]`.
pub(super) fn by_position(effects: &Effects) -> Array2<f32> {
    effects.mean().into_dimensionality().expect("layers and positions")
}
