//! Prints notices about a model, its tokens and its results, and writes them at the head of a
//! report.

use rewire_analysis::stats::Warning;
use rewire_model::WeightStorage;
use rewire_report::Page;
use rewire_tasks::ioi::{IoiGenerator, NAMES};

use crate::model::Source;
use crate::output::{print, say};
use crate::session::Session;

/// Prints whether text begins with the BOS and, to standard error, warnings about the tokenizer.
pub(crate) fn announce(source: &Source) -> anyhow::Result<()> {
    source.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    if source.storage == WeightStorage::Stored {
        print(&format!("{}: weights stay in their files and are converted to float32 when used\n", source.name))?;
    }
    match source.beginning() {
        Some(beginning) => print(&format!("{}: {beginning}\n", source.name)),
        None => Ok(()),
    }
}

/// Prints how many names the generated IOI prompts use, if the tokenizer splits some of them.
pub(crate) fn announce_names(source: &Source) -> anyhow::Result<()> {
    let (used, of) = (IoiGenerator::new(source.tokenizer()?)?.names().len(), NAMES.len());
    if used == of {
        return Ok(());
    }
    let name = &source.name;
    print(&format!("{name}: generated prompts use the {used} of {of} names that are single tokens of its tokenizer\n"))
}

/// Prints warnings about results to standard error, one line each with the name of the result.
/// Returns all warnings: first those about the source, which [`announce`] and [`Source::load`]
/// printed, then these.
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

/// Returns the page of a report with the first sections: the warnings, and a note if the memory was
/// too small for the planned batches.
pub(crate) fn new_page(title: &str, subtitle: &str, session: &Session, warnings: &[String]) -> Page {
    let mut page = Page::new(title, subtitle);
    page.warnings(warnings);
    let reduced = session.reduced();
    if !reduced.is_empty() {
        page.section(
            "Memory",
            "Some batches did not fit into the free memory. They were divided; the numbers do not change.",
        );
        reduced.iter().for_each(|line| page.text(line));
    }
    page
}
