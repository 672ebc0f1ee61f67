//! Screening results, as text and as a table.

use rewire_analysis::Effects;
use rewire_analysis::node::NodeIndex;
use rewire_analysis::patching::Screened;
use rewire_tasks::PromptPairs;

use crate::names::{self, counted};

/// The header of [`rows`].
pub const HEADER: [&str; 4] = ["node", "attribution", "exact", "error"];

/// Returns the name of a node: its kind and its index.
#[must_use]
pub fn name(screened: &Screened, place: &NodeIndex, pairs: &PromptPairs) -> String {
    let effects = &screened.attribution.effects[place.kind];
    format!("{} {}", effects.kind, names::of_node(effects, &place.index, pairs))
}

/// Returns how many nodes were verified, and the largest attribution that was skipped.
#[must_use]
pub fn in_words(screened: &Screened, pairs: &PromptPairs) -> String {
    let skipped = match &screened.largest_skipped {
        Some((place, value)) => format!(
            "{} {} skipped; the largest attribution among them is {value:.4} ({})",
            counted(screened.skipped, "node"),
            if screened.skipped == 1 { "was" } else { "were" },
            name(screened, place, pairs)
        ),
        None => "no node was skipped".to_owned(),
    };
    format!("{} of largest attribution patched exactly; {skipped}", counted(screened.verified.len(), "node"))
}

/// Returns table rows of attribution and exact effect, for the first `n` verified nodes.
#[must_use]
pub fn rows(screened: &Screened, pairs: &PromptPairs, n: usize) -> Vec<Vec<String>> {
    let [estimates, exact] = [&screened.attribution, &screened.exact]
        .map(|outcome| outcome.effects.iter().map(Effects::mean).collect::<Vec<_>>());
    let row = |place: &NodeIndex| {
        let [estimate, exact] = [&estimates, &exact].map(|means| means[place.kind][place.index.as_slice()]);
        vec![
            name(screened, place, pairs),
            format!("{estimate:.4}"),
            format!("{exact:.4}"),
            format!("{:+.4}", estimate - exact),
        ]
    };
    screened.verified.iter().take(n).map(row).collect()
}
