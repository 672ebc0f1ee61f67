//! One self-contained HTML page.

use std::io::Write;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotly::Plot;

use crate::attention;
use crate::attention::AttentionMap;
use crate::charts::common::Chart;
use crate::error::ReportError;
use crate::graph::Graph;

/// A report: sections of text, tables and charts, with the plotting script embedded.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    subtitle: String,
    sections: Vec<Section>,
}

#[derive(Debug, Clone)]
struct Section {
    heading: String,
    lead: String,
    parts: Vec<PageItem>,
}

#[derive(Debug, Clone)]
enum PageItem {
    Charts(Vec<Chart>),
    Table { header: Vec<String>, rows: Vec<Vec<String>> },
    Text(String),
    Attention(Vec<AttentionMap>),
    Graph(Graph),
}

impl Page {
    /// Creates an empty page.
    #[must_use]
    pub fn new(title: &str, subtitle: &str) -> Self {
        Self { title: title.to_owned(), subtitle: subtitle.to_owned(), sections: Vec::new() }
    }

    /// Adds the finding, in a few sentences and one figure.
    pub fn finding(&mut self, sentences: &[String], figure: Option<Chart>) {
        self.section("Finding", "");
        sentences.iter().for_each(|sentence| self.text(sentence));
        figure.into_iter().for_each(|figure| self.chart(figure));
    }

    /// Begins a section. Later additions go into it.
    pub fn section(&mut self, heading: &str, lead: &str) {
        self.sections.push(Section { heading: heading.to_owned(), lead: lead.to_owned(), parts: Vec::new() });
    }

    /// Adds a section of warnings, one paragraph per warning. Adds nothing if there are no
    /// warnings.
    pub fn warnings(&mut self, warnings: &[String]) {
        if !warnings.is_empty() {
            self.section("Warnings", "Reasons to doubt the numbers below.");
            warnings.iter().for_each(|warning| self.text(warning));
        }
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

    /// Adds a table.
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
                    link rel="icon" href="data:,";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) (PreEscaped(attention::STYLE)) }
                    (PreEscaped(plotting_script()))
                }
                body {
                    h1 { (self.title) }
                    p.subtitle { (self.subtitle) }
                    nav {
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
    }
}

impl Section {
    fn render(&self, number: usize) -> Markup {
        html! {
            section id={ "section-" (number) } {
                h2 { (self.heading) }
                @if !self.lead.is_empty() { p { (self.lead) } }
                @for (i, part) in self.parts.iter().enumerate() { (part.render(&format!("chart-{number}-{i}"))) }
            }
        }
    }
}

impl PageItem {
    fn render(&self, id: &str) -> Markup {
        match self {
            PageItem::Text(text) => html! { p { (text) } },
            PageItem::Attention(maps) => attention::render(id, maps),
            PageItem::Graph(graph) => graph.render(id),
            PageItem::Table { header, rows } => html! {
                div.scroll {
                    table {
                        thead { tr { @for cell in header { th { (cell) } } } }
                        tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
                    }
                }
            },
            PageItem::Charts(charts) => html! {
                div.charts {
                    @for (i, chart) in charts.iter().enumerate() {
                        @let id = format!("{id}-{i}");
                        div.frame { div id=(id) style={ "width:" (chart.width) "px;height:" (chart.height) "px" } {} }
                        // A tag or comment inside a label would end the script, or keep it from
                        // ending.
                        script { (PreEscaped(format!(
                            "rewireDraw({id:?}, {});", chart.plot_json.replace('<', "\\u003c")
                        ))) }
                    }
                }
            },
        }
    }
}

/// Returns the plotting script: Plotly without its bundled formula typesetter, which no chart here
/// uses.
fn plotting_script() -> String {
    let sources = Plot::offline_js_sources();
    let plotly = sources.split_inclusive("</script>").next().unwrap_or_default();
    format!("{plotly}<script>{DRAW}\n{}</script>", attention::SCRIPT)
}

/// Draws a chart in its box, without the toolbar that covers titles.
const DRAW: &str = "function rewireDraw(id, figure) {
  Plotly.newPlot(id, figure.data, figure.layout, {displayModeBar: false, responsive: false});
}";

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .25rem; }
.subtitle { color: #555; margin-top: .25rem; }
nav { background: #f6f7f9; border-radius: 6px; padding: .5rem 1rem; }
nav ol { margin: 0; padding-left: 1.5rem; columns: 2; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
.frame { flex: none; max-width: 100%; overflow-x: auto; }
.scroll { overflow-x: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #e5e5e5; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #bbb; }
@media print { nav { display: none; } }
";
