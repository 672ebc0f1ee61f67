//! What commands print and write.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use rewire_analysis::stats::Warning;
use rewire_report::{Page, TABLE_FILES};
use rewire_store::{OutputDirectory, StoreError, Waiting};

use crate::model::Source;
use crate::publish::REPORT;
use crate::session::Session;

/// The words of this command line after the program; bytes that are not UTF-8 are replaced.
pub(crate) fn command() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Names of the files that every analysis writes to its output directory.
pub(crate) const RESULTS: [&str; 4] = [TABLE_FILES[0], TABLE_FILES[1], TABLE_FILES[2], REPORT];

/// Whether a command waits for another run that holds its output directory.
#[derive(Args)]
pub struct WaitArguments {
    /// Wait while another run is writing to --out, instead of refusing.
    #[arg(long)]
    wait: bool,
}

impl WaitArguments {
    /// Takes the output directory for this run, which will write files of these names.
    pub fn take(&self, out: &Path, results: &[&str]) -> Result<OutputDirectory, StoreError> {
        let tell =
            |holder: &str| say(&format!("waiting for another run that is writing to {} ({holder})", out.display()));
        let waiting = if self.wait { Waiting::Wait(&tell) } else { Waiting::Refuse };
        let taken = OutputDirectory::take(out, results, &command().join(" "), waiting)?;
        taken.notices().iter().for_each(|notice| say(notice));
        Ok(taken)
    }
}

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

/// Rows under a header, each column as wide as its widest cell; the first aligned left, the others right.
pub(crate) fn text_table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(i, cell)| match i {
            0 => format!("{cell:<w$}", w = width(i)),
            _ => format!("{cell:>w$}", w = width(i)),
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    [line(header.to_vec())].into_iter().chain(rows).collect()
}

/// Writes to standard output. A reader that stops reading (`| head`) is no error; a full disk is.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// An error and its causes in one line. A cause that the line ends with already is not repeated.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |line, cause| match line.ends_with(&cause) {
        true => line,
        false if line.is_empty() => cause,
        false => format!("{line}: {cause}"),
    })
}

/// Writes a line to standard error. If that fails there is nobody left to tell.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn a_cause_is_told_once() {
        let error =
            anyhow::anyhow!("the disk is full").context("cannot write a.txt: the disk is full").context("saving");
        assert_eq!(explain(&error), "saving: cannot write a.txt: the disk is full");
        assert_eq!(explain(&anyhow::anyhow!("alone")), "alone");
    }
}
