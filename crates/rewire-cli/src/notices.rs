//! Notices about a model, its tokens and its results: on the terminal, and at the head of a report.

use rewire_analysis::stats::Warning;
use rewire_report::Page;

use crate::model::Source;
use crate::output::{print, say};
use crate::session::Session;

/// Prints the tokens that text begins with and, to standard error, doubts about the tokenizer.
pub(crate) fn announce(source: &Source) -> anyhow::Result<()> {
    source.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    match source.beginning() {
        Some(beginning) => print(&format!("{}: {beginning}\n", source.name)),
        None => Ok(()),
    }
}

/// Prints warnings about results to standard error, one line each with the name of its result.
/// Returns the lines, after those about the source, which [`announce`] has printed.
pub(crate) fn warn<'a>(source: &Source, of: impl IntoIterator<Item = (&'a str, Vec<Warning>)>) -> Vec<String> {
    let mut lines = source.warnings();
    for (name, warnings) in of {
        for warning in warnings {
            let line = if name.is_empty() { warning.to_string() } else { format!("{name}: {warning}") };
            if !lines.contains(&line) {
                say(&format!("warning: {line}"));
                lines.push(line);
            }
        }
    }
    lines
}

/// Returns a page of a report that begins with the warnings, with what text begins with, and with a
/// note if there was too little memory.
pub(crate) fn new_page(title: &str, subtitle: &str, session: &Session, source: &Source, warnings: &[String]) -> Page {
    let mut page = Page::new(title, subtitle);
    page.warnings(warnings);
    if let Some(beginning) = source.beginning() {
        page.section("Tokens", &format!("In prompts, {beginning}."));
    }
    let reduced = session.reduced();
    if !reduced.is_empty() {
        page.section(
            "Memory",
            "There was too little memory for as much at once as was meant. The numbers are the same.",
        );
        reduced.iter().for_each(|line| page.text(line));
    }
    page
}
