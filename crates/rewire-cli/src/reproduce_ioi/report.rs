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
        "A clean prompt names two people and repeats one, the subject; the model should say the other, the indirect object. \
         In the corrupted prompt the repeated name is changed. The metric is the logit of the right name less that of the \
         wrong one, at the last token; normalized, 0 is the corrupted prompts' mean and 1 the clean ones'.",
    );
    let row = |set: &Set| {
        let [clean, corrupted] = set.baselines();
        let made = match set.set {
            "demo" => "the demo's".to_owned(),
            _ => format!("generated, seed {}, corrupted by {}", arguments.seed, arguments.corruption),
        };
        vec![made, set.pairs.len().to_string(), format!("{clean:.4}"), format!("{corrupted:.4}")]
    };
    let rows = found.sets.iter().map(row).collect();
    page.table(&["prompts", "number", "clean logit difference", "corrupted"], rows);
    for set in &found.sets {
        let ranked = set.heads(0);
        let top = ranked.iter().take(5).map(|h| format!("{} ({:+.2})", head_name(h.layer, h.head), h.exact));
        let top = top.collect::<Vec<_>>().join(", ");
        page.text(&format!("The heads that bring most of the behavior back, on the {} prompts: {top}.", set.set));
    }
    page.text(&format!("The demo's first prompt: {}", found.sets[0].pairs.labels(0).concat()));
    if !found.checks.is_empty() {
        page.text(
            "This model has the shape of the one that the demo used; the figures that the demo prints, and ours:",
        );
        page.table(&Check::HEADER, found.checks.iter().map(Check::row).collect());
    }
}

/// Head outputs on a set of prompts: exact, by attribution, and one against the other; with how sure they are.
fn heads(page: &mut Page, set: &Set, labels: &Labels) {
    let named = match set.set {
        "demo" => "the demo's prompts".to_owned(),
        _ => format!("{} generated prompts", set.pairs.len()),
    };
    for (index, direction) in set.shown() {
        page.section(
            &format!("Heads on {named}, {direction}"),
            match index {
                0 => "The corrupted run takes one head's output, at all positions, from the clean run: 0 changes nothing, 1 \
                      brings all of the behavior back.",
                _ => "The clean run takes one head's output, at all positions, from the corrupted run: 0 changes nothing, -1 \
                      takes all of the behavior away.",
            },
        );
        exact_and_attribution(page, "Head outputs", &set.outcomes[index], labels.by_head());
        let ranked = set.heads(index);
        let point =
            |h: &HeadEffect| Point { x: h.exact, y: h.attribution, layer: h.layer, name: head_name(h.layer, h.head) };
        let points: Vec<_> = ranked.iter().map(point).collect();
        let r = correlation(&ranked).map_or("none".to_owned(), |r| format!("{r:.4}"));
        let title = format!("Attribution against exact effect (Pearson {r})");
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
        "Exact effects are activation patching: the model is run again for each node, with nothing approximated. Attribution \
         is (activation of the other run - own activation) times the gradient of the metric, summed: one backward pass for \
         all nodes, right where the network is linear between the two runs. Standard errors and intervals are over clusters of \
         prompts (a pair, its mirror and their repeats count once), with the unit (clean less corrupted mean) held. Family-wise \
         p-values take all heads of a table together. Every number is in effects.safetensors beside this file, per prompt, \
         and all but the largest tables in effects.csv; effects.json says how they were made.",
    );
}

/// Two maps on one color scale: the exact effects, and their attribution.
fn exact_and_attribution(page: &mut Page, title: &str, outcomes: &[Outcome; 2], labels: AxisNames) {
    let titles = ["exact", "attribution"].map(|how| format!("{title} ({how})"));
    let both: Vec<_> = titles.into_iter().zip(outcomes.iter().map(|o| mean_map(&o.effects[0]))).collect();
    maps(page, &both, labels);
}
