//! The finding that the report and the printed summary of a reproduction begin with, and the
//! section on how to read the report.

use rewire_report::Page;
use rewire_report::charts::{self, Bars, Chart};

use crate::model::Source;
use crate::session::Session;

/// The result of a study: a few sentences, and the figure that shows them.
pub(crate) struct Finding {
    pub(crate) sentences: Vec<String>,
    pub(crate) figure: Option<Chart>,
}

impl Finding {
    /// Returns the sentences as the first lines of a summary, and a blank line.
    pub(crate) fn on_screen(&self) -> String {
        format!("{}\n\n", self.sentences.join("\n"))
    }

    /// Returns the page of a report that begins with the finding and, if there are any, the
    /// warnings.
    pub(crate) fn page(&self, title: &str, subtitle: &str, warnings: &[String]) -> Page {
        let mut page = Page::new(title, subtitle);
        page.finding(&self.sentences, self.figure.clone());
        page.warnings(warnings);
        page
    }
}

/// Begins the section on how to read a report: the given lead, the BOS, and a note if the
/// memory was too small for the planned batches.
pub(crate) fn reading(page: &mut Page, session: &Session, source: &Source, lead: &str) {
    page.section("How to read this", lead);
    if let Some(beginning) = source.beginning() {
        page.text(&format!("In prompts, {beginning}."));
    }
    let reduced = session.reduced();
    if !reduced.is_empty() {
        page.text("Some batches did not fit into the free memory. They were divided; the numbers do not change.");
        reduced.iter().for_each(|line| page.text(line));
    }
}

/// One node of a figure: its exact effect with the ends of its interval, and its estimate, all in
/// one unit.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) exact: f32,
    pub(crate) ends: Option<[f32; 2]>,
    pub(crate) estimate: Option<f32>,
}

/// Returns bars of exact effects with their intervals and, beside them, of the estimates. The two
/// series have the names `series`. `None` without nodes.
pub(crate) fn bars(title: &str, nodes: &[Bar], series: [&str; 2], axes: [&str; 2]) -> Option<Chart> {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let alone = |value: f32| [f64::from(value); 2];
    let exact = Bars {
        name: series[0].to_owned(),
        heights: nodes.iter().map(|node| f64::from(node.exact)).collect(),
        intervals: nodes.iter().map(|node| node.ends.map_or(alone(node.exact), |ends| ends.map(f64::from))).collect(),
    };
    let estimates: Option<Vec<f32>> = nodes.iter().map(|node| node.estimate).collect();
    let estimates = estimates.map(|values| Bars {
        name: series[1].to_owned(),
        heights: values.iter().map(|value| f64::from(*value)).collect(),
        intervals: values.into_iter().map(alone).collect(),
    });
    let rows: Vec<Bars> = [exact].into_iter().chain(estimates).collect();
    let highest =
        rows.iter().flat_map(|row| row.heights.iter().copied().chain(row.intervals.iter().map(|ends| ends[1])));
    let top = highest.fold(0.0, f64::max);
    (!nodes.is_empty()).then(|| charts::bars(title, &names, &rows, axes, top))
}
