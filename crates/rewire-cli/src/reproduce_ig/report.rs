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
        "Two attributions of every neuron and head, each compared with activation patching. \"integrated\" is \
         integrated gradients. \"notebook's\" is the notebook's figure: the number that the source document's code \
         computes instead. It is one gradient near the clean activation, times the change of the activation, times a \
         small weight. This section uses one pair of prompts. The next section averages over many pairs.",
    );
    page.table(&COMPARISON, comparison_rows(found));
    page.text(
        "Pearson: correlation with activation patching. Slope: least-squares slope of patching against attribution. \
         Jaccard: nodes among the largest of both methods, as a share of the nodes among the largest of either. Mean \
         difference and SD: patching minus attribution, after dividing each method's scores by their largest absolute \
         value.",
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
        "There is one pair of prompts. The clean prompt repeats Mary, so the answer is John. The corrupted prompt \
         repeats John. The metric is the logit difference at the last token: the logit of \" John\" minus the logit of \
         \" Mary\".",
    );
    let [clean, corrupted] = found.compared.logit_differences();
    page.table(
        &["run", "logit difference"],
        vec![vec!["clean".to_owned(), format!("{clean:.4}")], vec!["corrupted".to_owned(), format!("{corrupted:.4}")]],
    );
    page.text(&format!("The clean prompt: {}", prompts.pair.labels(0).concat().replace("<|endoftext|>", "BOS ")));
    if clean <= corrupted {
        page.text(
            "The logit difference on the clean prompt is not above the one on the corrupted prompt. This model does \
             not do the task on this pair, so the results below do not describe the task.",
        );
    }
    if !checks.is_empty() {
        page.text(
            "This model has the shape of the notebook's model. The table compares the figures that the notebook prints \
             with ours:",
        );
        page.table(&Check::HEADER, checks.iter().map(Check::row).collect());
        page.text(
            "The notebook's table of heads on this pair is at least 18 times larger than the notebook's code gives. \
             The published code therefore did not produce that table. The figures from that table have no verdict:",
        );
        page.table(&ASIDES, aside_rows(&asides(&found.compared)));
    }
}

/// Adds the correlations over the generated pairs.
fn averaged(page: &mut Page, found: &Found) {
    let Some(averaged) = &found.averaged else { return };
    page.section(
        "Which follows activation patching?",
        &format!(
            "{} generated pairs of prompts (seed {}), corrupted baseline. The corrupted prompt repeats the other name. \
             Each pair has two Pearson correlations over all nodes: of activation patching with the one gradient that \
             the notebook's code computes, and of activation patching with the integral (integrated gradients). The \
             table has means over pairs, with 95% bootstrap intervals over pairs, or with ranges if there are too few \
             pairs. An interval holds for such prompts and this model. It says nothing about other models.",
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
        "Integrated gradients moves all heads (or neurons) of a layer together along a straight line, from the clean \
         activation to the baseline. The attribution of a node is its change of activation times the gradient, \
         integrated along the line ({}, {} steps; more steps in layers with too large a gap). The attributions of a \
         layer sum to the change of the metric along the line. Activation patching replaces one node at a time by its \
         activation on the corrupted run, and its effects need not sum to anything. In both methods, a node that \
         supports the behavior has a score below 0.",
        arguments.rule, arguments.steps
    ));
    page.text(
        "Every number is in effects.safetensors, in the same directory as this file. effects.json has the settings, \
         the comparisons and the ablation study.",
    );
}
