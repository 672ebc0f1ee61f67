//! The summary that the command prints.

use rewire_report::agreement;
use rewire_report::edge_agreement::{self, EdgeAgreements};
use rewire_report::names::counted;
use rewire_studies::Check;

use super::shown::{Found, TOP, correlation};
use crate::finding::Finding;
use crate::in_words::right_on;
use crate::model::Source;
use crate::output::text_table;
use crate::session::Session;

/// Returns the text of the summary: the finding, then the tables.
pub(super) fn summary(session: &Session, source: &Source, found: &Found, finding: &Finding) -> String {
    let mut text = finding.on_screen();
    text += &format!("{} on {}\n", source.name, session.device());
    for set in &found.sets {
        let [clean, corrupted] = set.baselines();
        let (n, name) = (set.pairs.len(), set.set);
        text += &format!(
            "\n{}: clean logit difference {clean:.4}, corrupted {corrupted:.4} (logits); {}\n",
            counted(n, &format!("{name} prompt")),
            right_on(set.right(), "clean prompt")
        );
        for (index, direction) in set.shown() {
            let heads = set.heads(index);
            let (header, rows) = set.table(index, TOP);
            text += &format!(
                "\n{direction}, heads by exact effect (head_z, all positions; shares of the clean-corrupted \
                 difference)\n"
            );
            text += &text_table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
            text += &format!("  {}\n", set.certainty[index].in_words());
            text += &match correlation(&heads) {
                Some(r) => format!("  attribution and exact effect over {} heads: Pearson {r:.4}\n", heads.len()),
                None => "  no correlation: attribution or exact effect is the same for all heads\n".to_owned(),
            };
        }
        text += &set.noising_in_words().map_or_else(String::new, |words| format!("\n{words}\n"));
    }
    text += "\nattribution compared with exact effects on the demo's prompts, denoising (correlations have no unit)\n";
    text += &text_table(&agreement::HEADER, &agreement::rows(&found.demo.agreements));
    let edges = EdgeAgreements::new(&found.edges);
    text += &format!(
        "\nestimates of edges compared with exact effects on the demo's prompts, denoising\n{}\n",
        edges.in_words()
    );
    text += &text_table(&edge_agreement::HEADER, &edges.rows());
    if !found.checks.is_empty() {
        text += "\ncompared with the figures that the demo prints\n";
        text += &text_table(&Check::HEADER, &found.checks.iter().map(Check::row).collect::<Vec<_>>());
    }
    text
}
