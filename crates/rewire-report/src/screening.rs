//! Screening results, as text and as a table.

use rewire_analysis::Effects;
use rewire_analysis::node::NodeIndex;
use rewire_analysis::patching::{Screened, SkippedBound};
use rewire_tasks::PromptPairs;
use serde_json::{Value, json};

use crate::names::{self, counted};
use crate::numbers::{number, signed};

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
            "{} {} skipped; the largest attribution among them is {} ({})",
            counted(screened.skipped, "node"),
            if screened.skipped == 1 { "was" } else { "were" },
            number(*value),
            name(screened, place, pairs)
        ),
        None => "no node was skipped".to_owned(),
    };
    format!("{} of largest attribution patched exactly; {skipped}", counted(screened.verified.len(), "node"))
}

/// Returns the bound on the effects of skipped nodes, its confidence, and what it assumes.
#[must_use]
pub fn bound_in_words(screened: &Screened, bound: &SkippedBound, pairs: &PromptPairs) -> String {
    format!(
        "with {}% confidence, no skipped node has a mean effect beyond {} in size ({} random subsets, {} of them with \
         each node; this assumes that the effects of nodes add up on average; the limit is that of {})",
        100.0 * bound.confidence,
        number(bound.bound),
        bound.subsets,
        bound.of_each,
        name(screened, &bound.node, pairs)
    )
}

/// Returns the bound on the effects of skipped nodes, for `effects.json`.
#[must_use]
pub fn describe_bound(screened: &Screened, bound: &SkippedBound, pairs: &PromptPairs) -> Value {
    json!({
        "bound": bound.bound,
        "confidence": bound.confidence,
        "subsets": bound.subsets,
        "subsets_of_each_node": bound.of_each,
        "node": name(screened, &bound.node, pairs),
        "estimate_of_node": bound.estimate,
        "assumes": "the effects of nodes that are patched together add up on average",
    })
}

/// Returns table rows of attribution and exact effect, for the first `n` verified nodes.
#[must_use]
pub fn rows(screened: &Screened, pairs: &PromptPairs, n: usize) -> Vec<Vec<String>> {
    let [estimates, exact] = [&screened.attribution, &screened.exact]
        .map(|outcome| outcome.effects.iter().map(Effects::mean).collect::<Vec<_>>());
    let row = |place: &NodeIndex| {
        let [estimate, exact] = [&estimates, &exact].map(|means| means[place.kind][place.index.as_slice()]);
        vec![name(screened, place, pairs), number(estimate), number(exact), signed(estimate - exact)]
    };
    screened.verified.iter().take(n).map(row).collect()
}
