//! The results, and their rows in the summary and the report.

use std::ops::Deref;

use ndarray::Array2;
use rewire_analysis::Effects;
use rewire_studies::facts::{self, Patched};

/// The results and labels that the report needs.
pub(super) struct Found {
    pub(super) found: facts::Found,
    /// The label of each position, one list per pair. Positions that differ have both tokens.
    pub(super) labels: Vec<Vec<String>>,
    /// One sentence for each pair that cannot be made.
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

/// Header of [`next_rows`].
pub(super) const NEXT: [&str; 7] = ["rank", "clean", "logit", "probability", "corrupted", "logit", "probability"];

/// Returns rows of the likeliest next tokens after the clean and the corrupted prompt.
pub(super) fn next_rows(set: &Patched) -> Vec<Vec<String>> {
    let [clean, corrupted] = &set.next;
    let cells = |(token, logit, probability): &(String, f32, f32)| {
        [format!("{token:?}"), format!("{logit:.2}"), percent(*probability)]
    };
    let rows = clean.likeliest.iter().zip(&corrupted.likeliest).enumerate();
    rows.map(|(rank, (clean, corrupted))| {
        [(rank + 1).to_string()].into_iter().chain(cells(clean)).chain(cells(corrupted)).collect()
    })
    .collect()
}

/// Returns a probability as a percentage, of which a small one is not printed as 0.
fn percent(probability: f32) -> String {
    match 100.0 * probability {
        small if small < 0.005 => "below 0.01%".to_owned(),
        percent => format!("{percent:.2}%"),
    }
}

/// Returns the mean effects of a kind, `[layer, position]`.
pub(super) fn by_position(effects: &Effects) -> Array2<f32> {
    effects.mean().into_dimensionality().expect("layers and positions")
}
