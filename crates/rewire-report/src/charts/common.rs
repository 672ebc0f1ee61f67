//! Parts that all charts share.

use plotly::Layout;
use plotly::common::{Font, Title};
use plotly::layout::Margin;

/// One chart for a [`Page`](crate::Page).
#[derive(Debug, Clone)]
pub struct Chart {
    pub(crate) plot_json: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Rounds a number to the digits that a color or a hover text shows. More digits would only make
/// the file larger.
pub(crate) fn shown(value: f32, reach: f32) -> f32 {
    if value.abs() < reach * 1e-5 { 0.0 } else { format!("{value:.3e}").parse().unwrap_or(value) }
}

/// Formats a number with about two significant digits.
pub(crate) fn short(v: f32) -> String {
    match v.abs() {
        0.0 => "0".to_owned(),
        size if size >= 0.1 => format!("{v:.2}"),
        size if size >= 0.001 => format!("{v:.4}"),
        _ => format!("{v:.0e}"),
    }
}

/// Returns the layout that all charts share.
pub(crate) fn layout(title: &str) -> Layout {
    Layout::new()
        .title(Title::from(title).font(Font::new().size(15)).x(0.02))
        .font(Font::new().family("system-ui, sans-serif").size(12))
        .margin(Margin::new().left(60).right(20).top(50).bottom(60))
        .plot_background_color("#ffffff")
        .paper_background_color("#ffffff")
}
