//! The summary that the command prints.

use rewire_studies::Check;

use super::rows::{CARRIED, MEMBERS, PUBLISHED, carried_rows, member_rows, published_rows, step_table};
use super::sentences::{receivers, reference, verdict};
use super::shown::Found;
use crate::finding::Finding;
use crate::in_words::right_on;
use crate::model::Source;
use crate::output::text_table;
use crate::session::Session;

/// Returns the text of the summary: the finding, then the tables.
pub(super) fn summary(
    session: &Session,
    source: &Source,
    found: &Found,
    finding: &Finding,
    checks: &[Check],
) -> String {
    let [clean, corrupted] = found.parts.baselines.means();
    let mut text = finding.on_screen();
    text += &format!(
        "{} on {}: {} prompts, clean logit difference {clean:.4}, corrupted {corrupted:.4} (logits); {}\n",
        source.name,
        session.device(),
        found.data.pairs.len(),
        right_on(found.right_answers(), "clean prompt")
    );
    text += "effects of path patching are shares of the clean-corrupted difference; below 0 serves the behavior\n";
    for (name, step) in &found.steps {
        text += &format!("\npath patching, {name}: into {}\n", receivers(step));
        let (header, rows) = step_table(step, 6);
        text += &text_table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
        text += &format!("  {}\n", step.certainty.in_words());
    }
    text += "\nthe circuit (effects are shares of the clean-corrupted difference)\n";
    text += &text_table(&MEMBERS, &member_rows(found));
    text += "\nshares of the clean logit difference (95% bootstrap interval over prompts)\n";
    text += &text_table(&CARRIED, &carried_rows(found));
    text += &format!("{}\n{}\n", verdict(found), reference(found));
    if source.is_gpt2_small() {
        text += "\ncompared with the published circuit\n";
        text += &text_table(&PUBLISHED, &published_rows(found));
    }
    if !checks.is_empty() {
        text += "\ncompared with the figures that the notebook prints, on its own prompts\n";
        text += &text_table(&Check::HEADER, &checks.iter().map(Check::row).collect::<Vec<_>>());
    }
    text
}
