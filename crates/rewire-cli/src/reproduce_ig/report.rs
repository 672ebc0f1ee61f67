//! The reproduction's report, in the notebook's order.

mod ablation;
mod attributions;
mod curves;

use rewire_report::Page;
use rewire_studies::Check;
use rewire_studies::integrated_gradients::{Found, Prompts, asides};

use super::arguments::Arguments;
use super::results::{ASIDES, AVERAGED, COMPARISON, aside_rows, averaged_rows, comparison_rows};
use crate::model::Source;
use crate::notices::new_page;
use crate::session::Session;

pub(super) fn page(
    session: &Session,
    source: &Source,
    prompts: &Prompts,
    found: &Found,
    checks: &[Check],
    arguments: &Arguments,
    warnings: &[String],
) -> Page {
    let title = "Integrated gradients against activation patching";
    let mut page = new_page(title, &source.subtitle(session.device()), session, source, warnings);
    task(&mut page, prompts, found, checks);
    page.section(
        "In short",
        "Scores of every neuron and head by both methods, one against the other. \"integrated\" is the integral, complete to within \
         the gap that a later section lists; \"notebook's\" is what the source document's code computes in its place: one gradient near the clean run, times \
         a small weight. Both are of one pair of prompts; the next section has many.",
    );
    page.table(&COMPARISON, comparison_rows(found));
    page.text(
        "Pearson: correlation with activation patching. Jaccard: nodes among the largest of both, as a share of those among the \
         largest of either. Mean difference and SD: patching less attribution, each scaled by its largest size.",
    );
    averaged(&mut page, found);
    attributions::sections(&mut page, found);
    ablation::sections(&mut page, source, found, arguments);
    curves::sections(&mut page, found);
    reading(&mut page, arguments);
    page
}

fn task(page: &mut Page, prompts: &Prompts, found: &Found, checks: &[Check]) {
    page.section(
        "The task",
        "One pair of prompts. In the clean one Mary repeats, so the milk goes to John; in the corrupted one John repeats. The metric \
         is the logit of \" John\" less that of \" Mary\" at the last token.",
    );
    let [clean, corrupted] = found.compared.logit_differences();
    page.table(
        &["run", "logit difference"],
        vec![vec!["clean".to_owned(), format!("{clean:.4}")], vec!["corrupted".to_owned(), format!("{corrupted:.4}")]],
    );
    page.text(&format!("The clean prompt: {}", prompts.pair.labels(0).concat().replace("<|endoftext|>", "BOS ")));
    if clean <= corrupted {
        page.text(
            "The clean prompt's logit difference is not above the corrupted one's: this model does not do the task on this pair, and \
             what follows is about something else.",
        );
    }
    if !checks.is_empty() {
        page.text("This model has the shape of the one that the notebook used; the figures that it prints, and ours:");
        page.table(&Check::HEADER, checks.iter().map(Check::row).collect());
        page.text(
            "The notebook's table of heads on this pair is at least 18 times larger than its own code gives, so that code did not make \
             it as it stands. What it prints of that table has no verdict:",
        );
        page.table(&ASIDES, aside_rows(&asides(&found.compared)));
    }
}

/// Correlations over the generated pairs.
fn averaged(page: &mut Page, found: &Found) {
    let Some(averaged) = &found.averaged else { return };
    page.section(
        "Which follows activation patching?",
        &format!(
            "{} generated pairs of prompts (seed {}), in whose corrupted prompt the other name repeats; corrupted baseline. On each pair, \
             Pearson's correlation over all nodes of activation patching with the one gradient that the notebook's code computes, and \
             with the integral. The table has means over pairs, with 95% bootstrap intervals over pairs (ranges, if the pairs are too \
             few). An interval says how sure the mean is on such prompts and this model; it says nothing about other models.",
            averaged.n, averaged.seed
        ),
    );
    page.table(&AVERAGED, averaged_rows(averaged));
    for kind in [0, 1] {
        page.text(&averaged.conclusion(kind));
    }
}

fn reading(page: &mut Page, arguments: &Arguments) {
    page.section("How to read this", "");
    page.text(&format!(
        "Integrated gradients of a layer: all its heads (or neurons) move together on a straight line from the clean activation to the \
         baseline's, and each one's attribution is what it moves times the gradient, integrated along the line ({}, {} nodes, more \
         where the gap asked for them). They sum to the change of the metric along the line. Activation patching moves one node at a \
         time, all the way, and its effects need not sum to anything. Below 0 is what supports the behavior, in both.",
        arguments.rule, arguments.steps
    ));
    page.text(
        "Every number is in effects.safetensors beside this file; effects.json says how they were made, and holds the comparisons and \
         the ablation study.",
    );
}
