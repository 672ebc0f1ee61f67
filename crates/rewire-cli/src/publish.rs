//! Publishes the results of an analysis: files of tables, a report, and a summary on standard
//! output.

use std::path::Path;

use rewire_report::{About, Labels, Page, TABLE_FILES, Table, write_results};
use rewire_store::OutputDirectory;
use serde_json::{Value, json};

use crate::model::Source;
use crate::output::print;
use crate::provenance::provenance;
use crate::session::Session;

/// Name of the report in the output directory.
pub(crate) const REPORT: &str = "report.html";

/// Names of the files that every analysis writes to its output directory.
pub(crate) const RESULTS: [&str; 4] = [TABLE_FILES[0], TABLE_FILES[1], TABLE_FILES[2], REPORT];

/// The results of a command, ready to be written.
pub(crate) struct Publication<'a> {
    /// Everything that the results depend on.
    pub(crate) run: Value,
    pub(crate) tables: Vec<Table>,
    /// Name of the metric that effects are measured in.
    pub(crate) metric: String,
    pub(crate) seed: u64,
    pub(crate) labels: Labels<'a>,
    pub(crate) baselines: Value,
    pub(crate) notes: Value,
    /// Warnings, one line each.
    pub(crate) warnings: Vec<String>,
    pub(crate) page: Page,
    /// Names and contents of further files.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    /// The text to print.
    pub(crate) summary: String,
}

impl Publication<'_> {
    /// Writes all files, and prints the summary, the time and the path of the report.
    ///
    /// # Errors
    /// If a file cannot be written; then no file is written. If standard output cannot be written
    /// to.
    pub(crate) fn publish(self, session: &Session, source: &Source, directory: &OutputDirectory) -> anyhow::Result<()> {
        let summary = self.write(session, source, directory)?;
        tell(session, directory.path(), &format!("{summary}\n"))
    }

    /// Writes all files, and returns the summary.
    ///
    /// # Errors
    /// If a file cannot be written, or after Ctrl-C; then no file is written.
    pub(crate) fn write(
        self,
        session: &Session,
        source: &Source,
        directory: &OutputDirectory,
    ) -> anyhow::Result<String> {
        let Contents { tables, about, files, summary } = self.contents(session, source)?;
        session.interrupts().begin_writing()?;
        write_results(directory, &tables, &about, files)?;
        session.interrupts().finish_writing();
        Ok(summary)
    }
}

/// The contents of the files of results.
pub(crate) struct Contents<'a> {
    pub(crate) tables: Vec<Table>,
    pub(crate) about: About<'a>,
    /// Names and contents of the files beside the tables and their description.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    /// The text to print.
    pub(crate) summary: String,
}

impl<'a> Publication<'a> {
    /// Returns the contents of the files.
    ///
    /// # Errors
    /// If a file of the model cannot be read.
    pub(crate) fn contents(self, session: &Session, source: &Source) -> anyhow::Result<Contents<'a>> {
        let about = About {
            command: session.command().to_vec(),
            run: self.run,
            model: source.name.clone(),
            config: source.config.to_hugging_face(),
            processed_weights: source.is_processed(),
            metric: self.metric,
            device: session.device().to_string(),
            computed: session.computed(),
            seed: Some(self.seed),
            labels: self.labels,
            baselines: self.baselines,
            notes: self.notes,
            tokenization: source.tokenization(),
            finding: self.page.finding_sentences().to_vec(),
            warnings: self.warnings,
            provenance: provenance(session, source)?,
            started: Some(session.started()),
            wall_time_s: session.seconds(),
            versions: json!({ "rewire": env!("CARGO_PKG_VERSION"), "burn": "0.21.0" }),
        };
        let mut files = self.files;
        files.push((REPORT, self.page.render().into_bytes()));
        Ok(Contents { tables: self.tables, about, files, summary: self.summary })
    }
}

/// Prints a summary, the time and the path of the report.
///
/// # Errors
/// If standard output cannot be written to.
pub(crate) fn tell(session: &Session, out: &Path, summary: &str) -> anyhow::Result<()> {
    print(summary)?;
    print(&format!("{:.1} s; report: {}\n", session.seconds(), out.join(REPORT).display()))
}
