//! Curves, ranked lines, and bars.

use plotly::common::{ErrorData, ErrorType, Font, Line, Marker, Mode, Title};
use plotly::layout::{Axis, AxisType, BarMode, Legend};
use plotly::{Bar, Plot, Scatter};

use crate::charts::common::{Chart, Meaning, layout};

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

/// A line over named places, with a range at each.
#[derive(Debug, Clone, PartialEq)]
pub struct RangedLine {
    /// Name of the line.
    pub name: String,
    /// The value at each place; NaN leaves a gap.
    pub values: Vec<f32>,
    /// Lower and upper end of the range at each place.
    pub ranges: Vec<[f32; 2]>,
}

/// Returns lines over the same named `places`, which stand at equal distances. A range of zero
/// width is not drawn.
#[must_use]
pub fn ranged_lines(title: &str, places: &[String], lines: &[RangedLine], x_axis: &str, meaning: Meaning) -> Chart {
    let mut plot = Plot::new();
    for (number, RangedLine { name, values, ranges }) in lines.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let reach = |end: usize| {
            let ends = values.iter().zip(ranges).map(|(value, range)| f64::from((range[end] - value).abs()));
            ends.map(|size| if size.is_finite() { size } else { 0.0 }).collect::<Vec<f64>>()
        };
        let mut line = Scatter::new(places.to_vec(), values.clone())
            .mode(Mode::LinesMarkers)
            .marker(Marker::new().color(color).size(6))
            .line(Line::new().color(color).width(2.0))
            .name(name)
            .hover_template(format!("{name} at %{{x}}<br>%{{y:.4g}}{}<extra></extra>", meaning.suffix()))
            .show_legend(true);
        let [below, above] = [reach(0), reach(1)];
        if below.iter().chain(&above).any(|size| *size > 0.0) {
            let range = ErrorData::new(ErrorType::Data).symmetric(false).array(above).array_minus(below);
            line = line.error_y(range.thickness(1.0).color(color));
        }
        plot.add_trace(line);
    }
    let x = Axis::new().title(Title::from(x_axis)).type_(AxisType::Category).auto_margin(true);
    let y = Axis::new().auto_margin(true).zero_line(true);
    let legend = Legend::new().font(Font::new().size(12));
    plot.set_layout(layout(&meaning.titled(title)).x_axis(x).y_axis(y).show_legend(true).legend(legend));
    let longest = places.iter().map(|place| place.chars().count()).max().unwrap_or(0);
    let width = (240 + places.len() * (8 * longest).clamp(40, 90)).clamp(480, 1080);
    Chart { plot_json: plot.to_json(), width, height: 380 }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_gaps_at_missing_values_and_ranges_where_values_differ() {
        let places = ["step1", "step2"].map(str::to_owned);
        let line = |values: [f32; 2], ranges: [[f32; 2]; 2]| RangedLine {
            name: "L0H1".to_owned(),
            values: values.to_vec(),
            ranges: ranges.to_vec(),
        };
        let lines = [line([0.5, f32::NAN], [[0.25, 1.0], [f32::NAN; 2]]), line([1.0, 2.0], [[1.0; 2], [2.0; 2]])];
        let meaning = Meaning { unit: "logits", ..Meaning::default() };
        let chart = ranged_lines("head_z", &places, &lines, "revision", meaning);
        let drawn: serde_json::Value = serde_json::from_str(&chart.plot_json).unwrap();
        let [first, second] = [&drawn["data"][0], &drawn["data"][1]];
        assert_eq!(first["y"], serde_json::json!([0.5, null]));
        assert_eq!([&first["error_y"]["array"][0], &first["error_y"]["arrayminus"][0]], [0.5, 0.25]);
        assert!(second["error_y"].is_null());
        assert!(first["hovertemplate"].as_str().unwrap().contains("%{y:.4g} logits"));
    }
}
