//! The parts of a page and their HTML: the finding, sections, tables, charts and text.

use maud::{Markup, PreEscaped, html};

use crate::attention;
use crate::attention::AttentionMap;
use crate::charts::common::Chart;
use crate::graph::{Graph, drawing};

/// The finding, at the top of a page.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) sentences: Vec<String>,
    pub(crate) figure: Option<Chart>,
}

impl Finding {
    /// Returns the finding as a highlighted box.
    pub(crate) fn render(&self) -> Markup {
        html! {
            aside.finding aria-label="The finding" {
                @for sentence in &self.sentences { p { (sentence) } }
                @if let Some(figure) = &self.figure { div.charts { (chart(figure, "chart-finding")) } }
            }
        }
    }
}

/// A section: its heading, its first paragraph, and its parts.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) heading: String,
    pub(crate) lead: String,
    pub(crate) parts: Vec<PageItem>,
}

/// One part of a section.
#[derive(Debug, Clone)]
pub(crate) enum PageItem {
    Charts(Vec<Chart>),
    Table { header: Vec<String>, rows: Vec<Vec<String>> },
    Text(String),
    Attention(Vec<AttentionMap>),
    Graph(Graph),
}

impl Section {
    pub(crate) fn render(&self, number: usize) -> Markup {
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
            PageItem::Graph(graph) => drawing::render(graph),
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
                    @for (i, one) in charts.iter().enumerate() { (chart(one, &format!("{id}-{i}"))) }
                }
            },
        }
    }
}

/// Returns a chart in a frame of the chart's size. A frame wider than the window is scrolled.
fn chart(chart: &Chart, id: &str) -> Markup {
    html! {
        div.frame { div id=(id) style={ "width:" (chart.width) "px;height:" (chart.height) "px" } {} }
        // A tag or comment inside a label would end the script, or keep it from ending.
        script { (PreEscaped(format!("rewireDraw({id:?}, {});", chart.plot_json.replace('<', "\\u003c")))) }
    }
}
