//! The reproduction's report: the finding, how to read it, exact effects with the estimates beside
//! them, checks, and details.

mod attention;
mod compared;
mod edges;
mod maps;
mod validation;

use rewire_analysis::Outcome;
use rewire_analysis::run::Direction;
use rewire_report::Page;
use rewire_report::charts::{self, Meaning, Point};
use rewire_studies::Check;
use rewire_studies::ioi::HeadEffect;

use super::arguments::Arguments;
use super::shown::{Found, Set, TOP, correlation};
use crate::edge_agreement;
use crate::finding::{Finding, reading};
use crate::model::Source;
use crate::session::Session;
use maps::{AxisNames, Labels, mean_map, side_by_side};
use rewire_report::names;
use rewire_report::names::head_name;

pub(super) fn page(
    session: &Session,
    source: &Source,
    found: &Found,
    finding: &Finding,
    arguments: &Arguments,
) -> Page {
    let title = "Attribution patching on indirect object identification";
    let mut page = finding.page(title, &source.subtitle(session.device()), &found.warnings);
    let lead = "Which parts of the model make it name the right person? Every effect is a share of the clean-corrupted \
                difference: the mean logit difference of the clean prompts minus that of the corrupted prompts. Blue \
                supports the behavior and red works against it. Blue effects are above 0, unless a section says \
                otherwise.";
    reading(&mut page, session, source, lead);
    task(&mut page, found, arguments);
    let labels = Labels::new(source, &found.sets[0].pairs);
    for set in &found.sets {
        heads(&mut page, set, &labels);
    }
    compared::sections(&mut page, source, found, &labels);
    validation::sections(&mut page, source, found);
    printed(&mut page, found);
    edges::section(&mut page, source, found, &labels, arguments);
    attention::section(&mut page, found);
    edge_agreement::add(&mut page, &found.edges, "share");
    files(&mut page);
    page
}

/// Adds the task, the methods and the sets of prompts to the reading guide.
fn task(page: &mut Page, found: &Found, arguments: &Arguments) {
    page.text(
        "The task. A clean prompt names two people and repeats one of the names, the subject. The right answer is the \
         other name, the indirect object. The corrupted prompt replaces one or more mentions of the names. The logit \
         difference is the logit of the right name minus the logit of the wrong name, at the last token. The model is \
         right on a prompt if it is above 0.",
    );
    page.text(
        "The methods. An exact effect comes from activation patching: one forward pass for each node, with no \
         approximation. An attribution is (activation on the other run - activation on this run) times the gradient of \
         the metric, summed: an estimate of the exact effect. One backward pass gives the attributions of all nodes. \
         They equal the exact effects if the network is linear between the two runs.",
    );
    let row = |set: &Set| {
        let [clean, corrupted] = set.baselines();
        let made = match set.set {
            "demo" => "the demo's".to_owned(),
            _ => format!("generated, seed {}, corruption {}", arguments.seed, arguments.corruption),
        };
        let right = set.right();
        let right = format!("{} of {}", right.successes, right.n);
        vec![made, set.pairs.len().to_string(), right, format!("{clean:.4}"), format!("{corrupted:.4}")]
    };
    let header = [
        "prompts",
        "number",
        "right on clean prompts",
        "clean logit difference (logits)",
        "corrupted logit difference (logits)",
    ];
    page.table(&header, found.sets.iter().map(row).collect());
    let pairs = &found.sets[0].pairs;
    page.text(&format!("The demo's first prompt: {}", pairs.labels(0).concat()));
    if let Some(note) = names::positions_note(pairs) {
        page.text(&format!("Maps by position are labeled with the first prompt's tokens. {note}"));
    }
}

/// Adds the head outputs on one set of prompts: exact effects, attributions, their comparison, and
/// standard errors.
fn heads(page: &mut Page, set: &Set, labels: &Labels) {
    let named = match set.set {
        "demo" => format!("the demo's {} prompts", set.pairs.len()),
        _ => format!("{} generated prompts", set.pairs.len()),
    };
    page.section(
        &format!("Heads on {named}"),
        "Each head's output, at all positions. Exact effects on the left, attributions on the right, in shares of the \
         clean-corrupted difference.",
    );
    for (index, direction) in set.shown() {
        page.text(match direction {
            Direction::Denoising => {
                "Denoising: the corrupted run takes one head's output from the clean run. An effect of 1 restores all \
                 of the behavior, 0 changes nothing."
            }
            Direction::Noising => {
                "Noising: the clean run takes one head's output from the corrupted run. An effect of -1 removes all of \
                 the behavior, 0 changes nothing. Here an effect below 0 supports the behavior."
            }
        });
        exact_and_attribution(page, &set.outcomes[index], labels.by_head());
        let ranked = set.heads(index);
        let point =
            |h: &HeadEffect| Point { x: h.exact, y: h.attribution, layer: h.layer, name: head_name(h.layer, h.head) };
        let points: Vec<_> = ranked.iter().map(point).collect();
        let r = correlation(&ranked).map_or("none".to_owned(), |r| format!("{r:.4}"));
        let title = format!("Attribution and exact effect (Pearson {r})");
        page.row(vec![charts::scatter(&title, &points, ["exact effect (share)", "attribution (share)"])]);
        let (header, rows) = set.table(index, TOP);
        page.table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows);
        page.text(&set.certainty[index].in_words());
    }
    if let Some(words) = set.noising_in_words() {
        page.text(&words);
    }
}

/// Adds maps of the exact effects and of the attributions, on one color scale.
fn exact_and_attribution(page: &mut Page, outcomes: &[Outcome; 2], labels: AxisNames) {
    let [exact, attribution] = outcomes.each_ref().map(|outcome| mean_map(&outcome.effects[0]));
    side_by_side(page, &[("Head outputs".to_owned(), [exact, attribution])], labels, Meaning::of(&outcomes[0]));
}

/// Adds the comparison with the figures that the demo prints, if the model is the demo's.
fn printed(page: &mut Page, found: &Found) {
    if !found.checks.is_empty() {
        page.section(
            "The demo's printed figures",
            "This model has the shape of the demo's model. The table compares the figures that the demo prints with \
             ours, to their printed digits. Logit differences are in logits.",
        );
        page.table(&Check::HEADER, found.checks.iter().map(Check::row).collect());
    }
}

fn files(page: &mut Page) {
    page.section(
        "Files and statistics",
        "Every number is in effects.safetensors, per prompt, in the same directory as this file. effects.csv has all \
         but the largest tables. effects.json has the settings.",
    );
    page.text(
        "Standard errors and intervals are over clusters of prompts: a pair, its mirror and their repeats count once. \
         They hold the clean-corrupted difference fixed. Family-wise p-values account for all heads of a table.",
    );
}
