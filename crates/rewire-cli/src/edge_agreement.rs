//! The section of a report that compares estimates of edges with exact effects.

use rewire_analysis::edges::{EdgeError, Reader, VerifiedEdges};
use rewire_report::charts::{self, Point};
use rewire_report::edge_agreement::{self, EdgeAgreements};
use rewire_report::{Page, names};

/// Rows of the table of largest errors.
const WORST: usize = 15;
/// Most points of the scatter, those of largest error.
const MOST_POINTS: usize = 5000;

/// Adds the agreement of each estimate, the figure of error against cost, and the errors of the
/// first estimate. `unit` is the unit of effects.
pub(crate) fn add(page: &mut Page, verified: &VerifiedEdges, unit: &str) {
    let agreements = EdgeAgreements::new(verified);
    let Some((estimate, own)) = agreements.all.first() else { return };
    page.section(
        "Estimates of edges against exact effects",
        "Each estimate of edges, compared with the exact effects of the edges that were patched. The error is the root \
         mean square of the differences, divided by that of the exact effects: 0 for exact estimates, 1 for estimates \
         of 0. A pass is one forward pass of the model over a prompt pair; a backward pass counts as two.",
    );
    page.text(&format!("{}.", agreements.in_words()));
    if let Some(chart) = agreements.chart() {
        page.chart(chart);
    }
    page.table(&edge_agreement::HEADER, agreements.rows());
    let point = |edge: &EdgeError| Point {
        x: edge.exact,
        y: edge.estimate,
        layer: layer(edge.edge.reader).unwrap_or(verified.exact.graph.n_layers()),
        name: edge.edge.to_string(),
    };
    let points: Vec<Point> = own.errors.iter().take(MOST_POINTS).map(point).collect();
    let axes = [format!("exact effect ({unit})"), format!("{} ({unit})", estimate.name)];
    page.chart(charts::scatter(
        &format!("{}, colored by reader's layer", estimate.name),
        &points,
        axes.each_ref().map(String::as_str),
    ));
    page.text(&format!(
        "Where {} errs: the shares of groups of edges, by reader and by writer, in its squared errors and in the squared \
         exact effects.",
        estimate.name
    ));
    page.table(&edge_agreement::SHARES_HEADER, edge_agreement::shares(own));
    page.text(&format!("The {} of largest error:", names::counted(WORST.min(own.errors.len()), "edge")));
    page.table(&edge_agreement::WORST_HEADER, edge_agreement::worst(own, WORST));
}

/// Returns the layer of a reader; `None` for the logits.
fn layer(reader: Reader) -> Option<usize> {
    match reader {
        Reader::Head(head, _) => Some(head.layer),
        Reader::Mlp(layer) => Some(layer),
        Reader::Logits => None,
    }
}
