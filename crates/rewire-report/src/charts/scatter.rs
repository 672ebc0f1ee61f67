//! Scatters of nodes, with straight lines through them.

use plotly::common::{ColorBar, ColorScale, ColorScalePalette, DashType, Line, Marker, Mode, Title};
use plotly::layout::{Axis, Legend};
use plotly::{Plot, Scatter};

use crate::charts::common::{Chart, layout, shown};

/// One point of a scatter.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Horizontal coordinate.
    pub x: f32,
    /// Vertical coordinate.
    pub y: f32,
    /// Layer, which sets the color.
    pub layer: usize,
    /// Text shown on hover.
    pub name: String,
}

/// A straight line across a scatter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StraightLine<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// Slope.
    pub slope: f64,
    /// Value at x = 0.
    pub intercept: f64,
    /// CSS color.
    pub color: &'a str,
}

/// Returns a scatter of `points`, colored by layer, with the line on which both coordinates agree.
/// Both axes have one scale.
#[must_use]
pub fn scatter(title: &str, points: &[Point], axes: [&str; 2]) -> Chart {
    let values = points.iter().flat_map(|p| [p.x, p.y]);
    let ends = padded(values.fold([0.0_f32, 0.0], |[low, high], v| [low.min(v), high.max(v)]));
    let agreement = Scatter::new(ends.to_vec(), ends.to_vec())
        .mode(Mode::Lines)
        .line(Line::new().color("#999999").dash(DashType::Dash).width(1.0))
        .hover_template("both agree<extra></extra>")
        .show_legend(false);
    let mut plot = Plot::new();
    plot.add_trace(agreement);
    drawn(plot, title, points, axes, false)
}

/// Returns a scatter of `points`, colored by layer, with straight lines across it. Each axis has
/// its own scale.
#[must_use]
pub fn scatter_with(title: &str, points: &[Point], axes: [&str; 2], lines: &[StraightLine]) -> Chart {
    let ends = padded(points.iter().fold([0.0_f32, 0.0], |[low, high], p| [low.min(p.x), high.max(p.x)]));
    let mut plot = Plot::new();
    for line in lines {
        let at = |x: f32| (line.intercept + line.slope * f64::from(x)) as f32;
        let trace = Scatter::new(ends.to_vec(), ends.map(at).to_vec())
            .mode(Mode::Lines)
            .line(Line::new().color(line.color.to_owned()).dash(DashType::Dash).width(1.5))
            .name(line.name)
            .hover_template("%{y:.4g}")
            .show_legend(true);
        plot.add_trace(trace);
    }
    drawn(plot, title, points, axes, !lines.is_empty())
}

/// Returns a range with a small margin on either side.
fn padded([low, high]: [f32; 2]) -> [f32; 2] {
    let margin = 0.05 * (high - low).max(f32::MIN_POSITIVE);
    [low - margin, high + margin]
}

fn drawn(mut plot: Plot, title: &str, points: &[Point], [x_axis, y_axis]: [&str; 2], legend: bool) -> Chart {
    let reach = |of: fn(&Point) -> f32| points.iter().fold(0.0_f32, |m, p| m.max(of(p).abs()));
    let [reach_x, reach_y] = [reach(|p| p.x), reach(|p| p.y)];
    let (x, y): (Vec<_>, Vec<_>) = points.iter().map(|p| (shown(p.x, reach_x), shown(p.y, reach_y))).unzip();
    let names: Vec<_> = points.iter().map(|p| p.name.clone()).collect();
    let layers: Vec<usize> = points.iter().map(|p| p.layer).collect();
    let last = layers.iter().copied().max().unwrap_or(0);
    let marker = Marker::new()
        .color_array(layers.iter().map(|&l| l as f64).collect::<Vec<f64>>())
        .color_scale(ColorScale::Palette(ColorScalePalette::Viridis))
        .cmin(0.0)
        .cmax(last.max(1) as f64)
        .size(if points.len() > 500 { 4 } else { 7 })
        .opacity(0.8)
        .color_bar(ColorBar::new().thickness(10).title(Title::from("layer")).dtick((last / 8 + 1) as f64))
        .show_scale(true);
    let nodes = Scatter::new(x, y)
        .mode(Mode::Markers)
        .marker(marker)
        .text_array(names)
        .hover_template(format!("%{{text}}<br>{x_axis} %{{x:.4g}}<br>{y_axis} %{{y:.4g}}<extra></extra>"))
        .show_legend(false);
    plot.add_trace(nodes);
    let axis = |name: &str| Axis::new().title(Title::from(name)).zero_line(true).auto_margin(true);
    let below = Legend::new().orientation(plotly::common::Orientation::Horizontal).y(-0.25).x(0.0);
    plot.set_layout(layout(title).x_axis(axis(x_axis)).y_axis(axis(y_axis)).show_legend(legend).legend(below));
    Chart { plot_json: plot.to_json(), width: 540, height: if legend { 460 } else { 420 } }
}
