//! The reproduction's report, in the demo's order.

mod attribution;
mod maps;
mod validation;

use rewire_analysis::Outcome;
use rewire_report::Page;
use rewire_report::charts::{self, Point};
use rewire_studies::Check;
use rewire_studies::ioi::HeadEffect;

use super::arguments::Arguments;
use super::shown::{Found, Set, TOP, correlation};
use crate::model::Source;
use crate::notices::new_page;
use crate::session::Session;
use maps::{AxisNames, Labels, maps, mean_map};
use rewire_report::names;
use rewire_report::names::head_name;

pub(super) fn page(session: &Session, source: &Source, found: &Found, arguments: &Arguments) -> Page {
    let title = "Attribution patching on indirect object identification";
    let mut page = new_page(title, &source.subtitle(session.device()), session, source, &found.warnings);
    task(&mut page, found, arguments);
    let labels = Labels::new(source, &found.sets[0].pairs);
    if let Some(note) = names::positions_note(&found.sets[0].pairs) {
        page.text(&format!("Maps by position are labeled with the first prompt's tokens. {note}"));
    }
    attribution::sections(&mut page, source, found, &labels, arguments);
    validation::sections(&mut page, source, found, &labels);
    for set in &found.sets {
        heads(&mut page, set, &labels);
    }
    reading(&mut page);
    page
}

fn task(page: &mut Page, found: &Found, arguments: &Arguments) {
    page.section(
        "The task",
        "A clean prompt names two people and repeats one of the names, the subject. The right answer is the other \
         name, the indirect object. The corrupted prompt replaces one or more mentions of the names. The \
         metric is the logit difference at the last token: the logit of the right name minus the logit of the wrong \
         name. Normalized, 0 is the mean of the corrupted prompts and 1 is the mean of the clean prompts.",
    );
    let row = |set: &Set| {
        let [clean, corrupted] = set.baselines();
        let made = match set.set {
            "demo" => "the demo's".to_owned(),
            _ => format!("generated, seed {}, corruption {}", arguments.seed, arguments.corruption),
        };
        vec![made, set.pairs.len().to_string(), format!("{clean:.4}"), format!("{corrupted:.4}")]
    };
    let rows = found.sets.iter().map(row).collect();
    page.table(&["prompts", "number", "clean logit difference", "corrupted logit difference"], rows);
    for set in &found.sets {
        let ranked = set.heads(0);
        let top = ranked.iter().take(5).map(|h| format!("{} ({:+.2})", head_name(h.layer, h.head), h.exact));
        let top = top.collect::<Vec<_>>().join(", ");
        page.text(&format!("The heads that restore most of the behavior on the {} prompts: {top}.", set.set));
    }
    page.text(&format!("The demo's first prompt: {}", found.sets[0].pairs.labels(0).concat()));
    if !found.checks.is_empty() {
        page.text(
            "This model has the shape of the demo's model. The table compares the figures that the demo prints with \
             ours:",
        );
        page.table(&Check::HEADER, found.checks.iter().map(Check::row).collect());
    }
}

/// Adds the head outputs on one set of prompts: exact effects, attributions, their comparison, and
/// standard errors.
fn heads(page: &mut Page, set: &Set, labels: &Labels) {
    let named = match set.set {
        "demo" => "the demo's prompts".to_owned(),
        _ => format!("{} generated prompts", set.pairs.len()),
    };
    for (index, direction) in set.shown() {
        page.section(
            &format!("Heads on {named}, {direction}"),
            match index {
                0 => {
                    "The corrupted run takes one head's output, at all positions, from the clean run. An effect of 0 \
                     changes nothing. An effect of 1 restores all of the behavior."
                }
                _ => {
                    "The clean run takes one head's output, at all positions, from the corrupted run. An effect of 0 \
                     changes nothing. An effect of -1 removes all of the behavior."
                }
            },
        );
        exact_and_attribution(page, "Head outputs", &set.outcomes[index], labels.by_head());
        let ranked = set.heads(index);
        let point =
            |h: &HeadEffect| Point { x: h.exact, y: h.attribution, layer: h.layer, name: head_name(h.layer, h.head) };
        let points: Vec<_> = ranked.iter().map(point).collect();
        let r = correlation(&ranked).map_or("none".to_owned(), |r| format!("{r:.4}"));
        let title = format!("Attribution and exact effect (Pearson {r})");
        page.chart(charts::scatter(&title, &points, ["exact effect (activation patching)", "attribution"]));
        let (header, rows) = set.table(index, TOP);
        page.table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows);
        page.text(&set.certainty[index].in_words());
    }
    if let Some(words) = set.noising_in_words() {
        page.text(&words);
    }
}

fn reading(page: &mut Page) {
    page.section("How to read this", "");
    page.text(
        "Exact effects come from activation patching: one forward pass for each node, with no approximation. \
         Attribution is (activation on the other run - activation on this run) times the gradient of the metric, \
         summed. One backward pass gives the attribution of all nodes. It equals the exact effect if the network is \
         linear between the two runs. Standard errors and intervals are over clusters of prompts: a pair, its mirror \
         and their repeats count once. They hold the effect scale (mean clean minus corrupted logit difference) fixed. \
         Family-wise p-values account for all heads of a table. Every number is in effects.safetensors, per prompt, in \
         the same directory as this file. effects.csv has all but the largest tables. effects.json has the settings.",
    );
}

/// Adds maps of the exact effects and of the attributions, on one color scale.
fn exact_and_attribution(page: &mut Page, title: &str, outcomes: &[Outcome; 2], labels: AxisNames) {
    let titles = ["exact", "attribution"].map(|how| format!("{title} ({how})"));
    let both: Vec<_> = titles.into_iter().zip(outcomes.iter().map(|o| mean_map(&o.effects[0]))).collect();
    maps(page, &both, labels);
}
