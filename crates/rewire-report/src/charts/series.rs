//! Curves, ranked lines, and bars.

use plotly::common::{ErrorData, ErrorType, Font, Line, Marker, Mode, Title};
use plotly::layout::{Axis, AxisType, BarMode, Legend};
use plotly::{Bar, Plot, Scatter};

use crate::charts::common::{Chart, layout};

/// Distinct colors, used in order. Red is last, because it opposes the behavior in maps.
const COLORS: [&str; 10] =
    ["#2166ac", "#e08214", "#1b7837", "#762a83", "#01665e", "#c51b7d", "#8c510a", "#4d4d4d", "#67a9cf", "#b2182b"];

/// Returns a line through numbers in falling order, each with its name.
#[must_use]
pub fn ranked_line(title: &str, values: &[(String, f32)], [x_axis, y_axis]: [&str; 2]) -> Chart {
    let (names, y): (Vec<_>, Vec<_>) = values.iter().cloned().unzip();
    let x: Vec<usize> = (1..=y.len()).collect();
    let line = Scatter::new(x, y)
        .mode(Mode::LinesMarkers)
        .marker(Marker::new().color("#2166ac").size(5))
        .line(Line::new().color("#2166ac").width(1.0))
        .text_array(names)
        .hover_template("%{text}<br>%{y:.4g}<extra></extra>")
        .show_legend(false);
    let mut plot = Plot::new();
    plot.add_trace(line);
    let axis = |name: &str| Axis::new().title(Title::from(name)).auto_margin(true);
    plot.set_layout(layout(title).x_axis(axis(x_axis)).y_axis(axis(y_axis).zero_line(true)));
    Chart { plot_json: plot.to_json(), width: 540, height: 320 }
}

/// Returns curves over the same `places` on the x axis, each with its name.
#[must_use]
pub fn curves(title: &str, places: &[f64], curves: &[(String, Vec<f32>)], [x_axis, y_axis]: [&str; 2]) -> Chart {
    let mut plot = Plot::new();
    for (number, (name, values)) in curves.iter().enumerate() {
        let line = Scatter::new(places.to_vec(), values.clone())
            .mode(Mode::Lines)
            .line(Line::new().color(COLORS[number % COLORS.len()]).width(2.0))
            .name(name)
            .hover_template("%{x:.3g}: %{y:.4g}")
            .show_legend(true);
        plot.add_trace(line);
    }
    let axis = |name: &str| Axis::new().title(Title::from(name)).auto_margin(true);
    plot.set_layout(layout(title).x_axis(axis(x_axis).zero_line(true)).y_axis(axis(y_axis)).show_legend(true));
    Chart { plot_json: plot.to_json(), width: 720, height: 420 }
}

/// One series of bars: heights and their intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// Name of the series.
    pub name: String,
    /// Heights, in the order of the names.
    pub heights: Vec<f64>,
    /// Lower and upper end of each height's interval.
    pub intervals: Vec<[f64; 2]>,
}

/// Returns grouped bars, one group per name, on a scale up to `top`. The scale begins at 0, or at
/// the lowest bar or interval below 0.
#[must_use]
pub fn bars(title: &str, names: &[String], rows: &[Bars], [x_axis, y_axis]: [&str; 2], top: f64) -> Chart {
    let mut plot = Plot::new();
    for (number, row) in rows.iter().enumerate() {
        let reach = |end: usize| {
            let ends = row.heights.iter().zip(&row.intervals).map(|(height, interval)| (interval[end] - height).abs());
            ends.collect::<Vec<f64>>()
        };
        let error =
            ErrorData::new(ErrorType::Data).symmetric(false).array(reach(1)).array_minus(reach(0)).thickness(1.0);
        let bar = Bar::new(names.to_vec(), row.heights.clone())
            .name(&row.name)
            .marker(Marker::new().color(COLORS[number % COLORS.len()]).opacity(0.85))
            .error_y(error)
            .hover_template("%{x}: %{y:.4g}");
        plot.add_trace(bar);
    }
    let x = Axis::new().title(Title::from(x_axis)).type_(AxisType::Category).auto_margin(true);
    let lowest = rows.iter().flat_map(|row| row.heights.iter().chain(row.intervals.iter().map(|ends| &ends[0])));
    let bottom = lowest.copied().fold(0.0, f64::min);
    let y = Axis::new().title(Title::from(y_axis)).auto_margin(true).range(vec![1.05 * bottom, 1.05 * top]);
    let legend = Legend::new().font(Font::new().size(12));
    let layout = layout(title).x_axis(x).y_axis(y).bar_mode(BarMode::Group).show_legend(rows.len() > 1).legend(legend);
    plot.set_layout(layout);
    let width = (260 + names.len() * (30 + 22 * rows.len())).clamp(420, 1080);
    Chart { plot_json: plot.to_json(), width, height: 400 }
}
