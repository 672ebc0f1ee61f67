//! One self-contained HTML page.

mod section;

use std::io::Write;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotly::Plot;

use crate::attention;
use crate::attention::AttentionMap;
use crate::charts::common::Chart;
use crate::error::ReportError;
use crate::graph::Graph;
use crate::page::section::{Finding, PageItem, Section};

/// A report: a finding, warnings, and sections of text, tables and charts. The plotting script is
/// embedded.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    subtitle: String,
    finding: Option<Finding>,
    warnings: Vec<String>,
    sections: Vec<Section>,
}

impl Page {
    /// Creates an empty page.
    #[must_use]
    pub fn new(title: &str, subtitle: &str) -> Self {
        Self {
            title: title.to_owned(),
            subtitle: subtitle.to_owned(),
            finding: None,
            warnings: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Sets the finding: the answer of the report. The page shows it in a box above the table of
    /// contents, whenever this is called: each sentence is a paragraph, the first in larger type,
    /// and the figure follows. A second call replaces the finding.
    pub fn finding(&mut self, sentences: &[String], figure: Option<Chart>) {
        self.finding = Some(Finding { sentences: sentences.to_vec(), figure });
    }

    /// Returns the sentences of the finding; none if no finding is set.
    #[must_use]
    pub fn finding_sentences(&self) -> &[String] {
        self.finding.as_ref().map_or(&[], |finding| &finding.sentences)
    }

    /// Adds warnings, one paragraph per warning. The page shows them directly after the finding,
    /// above the table of contents.
    pub fn warnings(&mut self, warnings: &[String]) {
        self.warnings.extend_from_slice(warnings);
    }

    /// Begins a section. Later additions go into it.
    pub fn section(&mut self, heading: &str, lead: &str) {
        self.sections.push(Section { heading: heading.to_owned(), lead: lead.to_owned(), parts: Vec::new() });
    }

    /// Adds a chart, next to the previous chart if there is space.
    pub fn chart(&mut self, chart: Chart) {
        let Some(section) = self.sections.last_mut() else { return };
        match section.parts.last_mut() {
            Some(PageItem::Charts(charts)) => charts.push(chart),
            _ => section.parts.push(PageItem::Charts(vec![chart])),
        }
    }

    /// Adds charts that belong together, in a row of their own.
    pub fn row(&mut self, charts: Vec<Chart>) {
        self.add(PageItem::Charts(charts));
    }

    /// Adds attention maps over the tokens of prompts. The reader chooses one map at a time.
    pub fn attention(&mut self, maps: Vec<AttentionMap>) {
        if !maps.is_empty() {
            self.add(PageItem::Attention(maps));
        }
    }

    /// Adds a graph.
    pub fn graph(&mut self, graph: Graph) {
        self.add(PageItem::Graph(graph));
    }

    /// Adds a table. A reader sorts it by clicking a column's header.
    pub fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) {
        let header = header.iter().map(|h| (*h).to_owned()).collect();
        self.add(PageItem::Table { header, rows });
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: &str) {
        self.add(PageItem::Text(text.to_owned()));
    }

    fn add(&mut self, part: PageItem) {
        if let Some(section) = self.sections.last_mut() {
            section.parts.push(part);
        }
    }

    /// Returns the page as HTML.
    #[must_use]
    pub fn render(&self) -> String {
        self.markup().into_string()
    }

    /// Writes the page to a file. The file is written whole, or stays unchanged on an error.
    ///
    /// # Errors
    /// [`ReportError::Write`](crate::ReportError::Write), if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        let path = path.as_ref();
        let failed = |source: std::io::Error| ReportError::Write { path: path.to_owned(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new("."))).map_err(failed)?;
        file.write_all(self.render().as_bytes()).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn markup(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href="data:,";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) (PreEscaped(attention::STYLE)) }
                    (PreEscaped(plotting_script()))
                }
                body { (self.body()) }
            }
        }
    }

    fn body(&self) -> Markup {
        html! {
            h1 { (self.title) }
            p.subtitle { (self.subtitle) }
            @if let Some(finding) = &self.finding { (finding.render()) }
            @if !self.warnings.is_empty() {
                section.warnings {
                    h2 { "Warnings" }
                    p { "Reasons to doubt the numbers below." }
                    @for warning in &self.warnings { p { (warning) } }
                }
            }
            nav aria-label="Contents" {
                ol {
                    @for (i, section) in self.sections.iter().enumerate() {
                        li { a href={ "#section-" (i) } { (section.heading) } }
                    }
                }
            }
            @for (i, section) in self.sections.iter().enumerate() { (section.render(i)) }
        }
    }
}

/// Returns the plotting script: Plotly without its bundled formula typesetter, which no chart here
/// uses, and the page's own scripts.
fn plotting_script() -> String {
    let sources = Plot::offline_js_sources();
    let plotly = sources.split_inclusive("</script>").next().unwrap_or_default();
    format!("{plotly}<script>{SCRIPT}\n{}</script>", attention::SCRIPT)
}

const SCRIPT: &str = include_str!("page/script.js");
const STYLE: &str = include_str!("page/style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finding_and_the_warnings_precede_the_table_of_contents() {
        let mut page = Page::new("Sweep", "toy");
        page.section("Effects", "");
        page.warnings(&["The span is small.".to_owned()]);
        page.finding(&["L1H2 has the largest effect.".to_owned(), "3 < 4 pairs.".to_owned()], None);
        let html = page.render();
        let body = html.split("<body>").nth(1).unwrap();
        let at = |text: &str| body.find(text).unwrap_or_else(|| panic!("{text} is not in {body}"));
        let order = [
            at("<aside class=\"finding\""),
            at("<p>L1H2 has the largest effect.</p><p>3 &lt; 4 pairs.</p>"),
            at("<h2>Warnings</h2>"),
            at("The span is small."),
            at("<nav"),
            at("<h2>Effects</h2>"),
        ];
        assert!(order.is_sorted(), "{body}");
    }

    #[test]
    fn a_page_without_finding_and_warnings_has_no_empty_boxes() {
        let html = Page::new("Sweep", "toy").render();
        let body = html.split("<body>").nth(1).unwrap();
        assert!(!body.contains("<aside") && !body.contains("Warnings"), "{body}");
    }
}
