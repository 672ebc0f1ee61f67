//! The reproduction's report: the finding, how to read it, exact effects, integrated gradients
//! beside them, checks, and details.

mod ablation;
mod attributions;
mod curves;
mod notebook;

use rewire_report::Page;
use rewire_studies::Check;
use rewire_studies::integrated_gradients::{Found, asides};

use super::arguments::Arguments;
use super::results::{ASIDES, AVERAGED, COMPARISON, aside_rows, averaged_rows, comparison_rows};
use super::shown::Shown;
use crate::finding::reading;
use crate::model::Source;
use crate::session::Session;

pub(super) fn page(session: &Session, source: &Source, shown: &Shown, arguments: &Arguments) -> Page {
    let title = "Integrated gradients against activation patching";
    let mut page = shown.finding.page(title, &source.subtitle(session.device()), shown.warnings);
    let lead = "Do attributions find the neurons and heads that activation patching finds? In both methods, a node \
                that supports the behavior has a score below 0, drawn in blue. Effects of patching are shares of the \
                clean-corrupted difference, attributions are in logits, unless a section says otherwise.";
    reading(&mut page, session, source, lead);
    task(&mut page, shown, arguments);
    let found = shown.found;
    attributions::exact(&mut page, &found.compared);
    // The corrupted baseline first: its line ends where patching does.
    attributions::integrated(&mut page, &found.compared, 1);
    attributions::integrated(&mut page, &found.compared, 0);
    follows(&mut page, found);
    ablation::sections(&mut page, source, found, arguments);
    printed(&mut page, shown);
    curves::sections(&mut page, found);
    notebook::section(&mut page, &found.compared);
    page
}

/// Adds the task and the methods to the reading guide.
fn task(page: &mut Page, Shown { prompts, found, .. }: &Shown, arguments: &Arguments) {
    page.text(
        "The task. There is one pair of prompts. The clean prompt repeats Mary, so the answer is John. The corrupted \
         prompt repeats John. The metric is the logit difference at the last token: the logit of \" John\" minus the \
         logit of \" Mary\". The model is right on a prompt if it says the right name.",
    );
    let [clean, corrupted] = found.compared.logit_differences();
    page.table(
        &["run", "logit difference (logits)"],
        vec![vec!["clean".to_owned(), format!("{clean:.4}")], vec!["corrupted".to_owned(), format!("{corrupted:.4}")]],
    );
    page.text(&format!("The clean prompt: {}", prompts.pair.labels(0).concat().replace("<|endoftext|>", "BOS ")));
    page.text(&format!(
        "The methods. Activation patching replaces one node at a time by its activation on the corrupted run, and its \
         effects need not sum to anything. Integrated gradients moves all heads (or neurons) of a layer together along \
         a straight line, from the clean activation to the baseline. The attribution of a node is its change of \
         activation times the gradient, integrated along the line ({}, {} steps; more steps in layers with too large a \
         gap). The attributions of a layer sum to the change of the metric along the line. The notebook's figure is \
         the number that the source document's code computes instead: one gradient near the clean activation, times \
         the change of the activation, times a small weight.",
        arguments.rule, arguments.steps
    ));
    page.text(
        "Every number is in effects.safetensors, in the same directory as this file. effects.json has the settings, \
         the comparisons and the ablation study.",
    );
}

/// Adds the comparison of both attributions with patching, on the pair and over the generated
/// pairs.
fn follows(page: &mut Page, found: &Found) {
    page.section(
        "Which follows activation patching?",
        "Two attributions of every neuron and head, each compared with activation patching: integrated gradients \
         (\"integrated\") and the notebook's figure (\"notebook's\"). The numbers have no unit. Pearson: correlation \
         with activation patching. Slope: least-squares slope of patching against attribution. Jaccard: nodes among \
         the largest of both methods, as a share of the nodes among the largest of either. Mean difference and SD: \
         patching minus attribution, after dividing each method's scores by their largest absolute value.",
    );
    page.text("On the one pair of prompts:");
    page.table(&COMPARISON, comparison_rows(found));
    let Some(averaged) = &found.averaged else {
        page.text("There are no generated pairs, so there is no mean over pairs.");
        return;
    };
    page.text(&format!(
        "Pearson correlations with activation patching over {} generated pairs of prompts (seed {}), corrupted \
         baseline. The corrupted prompt repeats the other name. The one gradient is what the notebook's code computes; \
         the integral is integrated gradients. The table has means over pairs, with 95% bootstrap intervals over \
         pairs, or with ranges if there are too few pairs. An interval holds for such prompts and this model. It says \
         nothing about other models.",
        averaged.n, averaged.seed
    ));
    page.table(&AVERAGED, averaged_rows(averaged));
    for kind in [0, 1] {
        page.text(&averaged.conclusion(kind));
    }
}

/// Adds the comparison with the figures that the notebook prints, if the model is the notebook's.
fn printed(page: &mut Page, Shown { found, checks, .. }: &Shown) {
    if checks.is_empty() {
        return;
    }
    page.section(
        "The notebook's printed figures",
        "This model has the shape of the notebook's model. The table compares the figures that the notebook prints \
         with ours, to their printed digits. Logit differences are in logits.",
    );
    page.table(&Check::HEADER, checks.iter().map(Check::row).collect());
    page.text(
        "The notebook's table of heads on this pair is at least 18 times larger than the notebook's code gives. The \
         published code therefore did not produce that table. The figures from that table have no verdict:",
    );
    page.table(&ASIDES, aside_rows(&asides(&found.compared)));
}
