//! Parts that all charts share.

use plotly::Layout;
use plotly::common::{Font, Title};
use plotly::layout::Margin;

use crate::charts::support::Support;

/// One chart for a [`Page`](crate::Page).
#[derive(Debug, Clone)]
pub struct Chart {
    pub(crate) plot_json: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The meaning of values in a chart of effects, for its colors, its legend and its hover text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meaning<'a> {
    /// Unit of the values, such as `logits`; see [`unit`](crate::units::unit). May be empty.
    pub unit: &'a str,
    /// The sign that supports the behavior.
    pub support: Support,
    /// Values nearer to 0 are rounding. They get the middle color; see
    /// [`floor`](crate::noise::floor).
    pub floor: f32,
}

impl<'a> Meaning<'a> {
    /// Returns the meaning of the effects of an outcome.
    #[must_use]
    pub fn of(outcome: &rewire_analysis::Outcome) -> Meaning<'static> {
        Meaning {
            unit: crate::units::unit(outcome.metric, outcome.scale),
            support: Support::of_outcome(outcome),
            floor: crate::noise::floor(outcome),
        }
    }

    /// Returns the unit with a leading space, or nothing.
    pub(crate) fn suffix(&self) -> String {
        if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) }
    }

    /// Returns the first word of the unit, which fits above a color bar.
    pub(crate) fn short_unit(&self) -> &'a str {
        self.unit.split(" of ").next().unwrap_or_default()
    }

    /// Returns a title with the unit below it.
    pub(crate) fn titled(&self, title: &str) -> String {
        match self.unit {
            "" => title.to_owned(),
            unit => format!("{title}<br><span style='font-size:11px'>{unit}</span>"),
        }
    }
}

/// Color of values that support the behavior.
pub(crate) const SUPPORTS: &str = "#2166ac";
/// Color of values that oppose the behavior.
pub(crate) const OPPOSES: &str = "#b2182b";

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

/// Returns the layout that all charts share. The script of the page adds the colors of the
/// reader's scheme.
pub(crate) fn layout(title: &str) -> Layout {
    Layout::new()
        .title(Title::from(title).font(Font::new().size(15)).x(0.02))
        .font(Font::new().family("system-ui, sans-serif").size(12))
        .margin(Margin::new().left(60).right(20).top(50).bottom(60))
}
