//! The summary that the command prints.

use rewire_analysis::Effects;
use rewire_report::names;

use super::shown::{Found, NEXT, next_rows};
use crate::finding::Finding;
use crate::model::Source;
use crate::output::text_table;
use crate::session::Session;
use rewire_report::numbers::number;

/// Number of effects per kind.
const TOP: usize = 5;

/// Returns the text of the summary: the finding, then the tables.
pub(super) fn summary(session: &Session, source: &Source, found: &Found, finding: &Finding) -> String {
    let mut text = finding.on_screen();
    text += &format!("{} on {}\n", source.name, session.device());
    for (set, labels) in found.patched.iter().zip(&found.labels) {
        let [clean, corrupted] = set.outcome.baselines.means();
        let [of_clean, of_corrupted] = &set.prompts;
        text += &format!("\nclean {of_clean:?}: logit difference {clean:.4} (logits)\n");
        text += &format!("corrupted {of_corrupted:?}: logit difference {corrupted:.4} (logits)\n");
        text += "the likeliest next tokens\n";
        text += &text_table(&NEXT, &next_rows(set));
        for effects in &set.outcome.effects {
            text += &format!("{} patched from the clean into the corrupted run, by position\n", effects.kind.component);
            text +=
                &text_table(&["place", "effect (share of the clean-corrupted difference)"], &largest(labels, effects));
        }
    }
    for warning in &found.left_out {
        text += &format!("\n{warning}\n");
    }
    let known = found.facts.iter().filter(|fact| fact.rank == 1).count();
    text += &format!("\n{known} of {} landmarks are followed by their city\n", found.facts.len());
    text
}

/// Returns the rows of largest effect: layer and token, effect.
fn largest(labels: &[String], effects: &Effects) -> Vec<Vec<String>> {
    let row = |(place, value): &(Vec<usize>, f32)| vec![format!("L{} {}", place[0], labels[place[1]]), number(*value)];
    names::largest(&effects.mean(), TOP).iter().map(row).collect()
}
