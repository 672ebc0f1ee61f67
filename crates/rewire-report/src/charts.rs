//! The charts of a report: heat maps and scatters, each with its title, labels and hover text.

use ndarray::ArrayView2;
use plotly::common::{ColorBar, ColorScale, ColorScaleElement, DashType, Font, Line, Marker, Mode, Title};
use plotly::layout::{Axis, AxisType, Margin};
use plotly::{HeatMap, Layout, Plot, Scatter};

/// One chart, to be put on a [`Page`](crate::Page).
#[derive(Debug, Clone)]
pub struct Chart {
    pub(crate) plot_json: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Red below 0, white at 0, blue above.
fn diverging() -> ColorScale {
    let stops = [(0.0, "#b2182b"), (0.25, "#ef8a62"), (0.5, "#f7f7f7"), (0.75, "#67a9cf"), (1.0, "#2166ac")];
    ColorScale::Vector(stops.map(|(at, colour)| ColorScaleElement(at, colour.to_owned())).to_vec())
}

/// The largest absolute value of some maps: give it to all of them, and their colours mean the same.
#[must_use]
pub fn reach<'a>(maps: impl IntoIterator<Item = ArrayView2<'a, f32>>) -> f32 {
    let sizes =
        maps.into_iter().flat_map(|map| map.iter().map(|v| v.abs()).filter(|v| v.is_finite()).collect::<Vec<_>>());
    sizes.fold(f32::MIN_POSITIVE, f32::max)
}

/// What a heat map shows: its labels and the ends of its colour scale.
#[derive(Debug, Clone, Copy)]
pub struct HeatMapLabels<'a> {
    /// Names of the rows, and what they are.
    pub rows: (&'a str, &'a [String]),
    /// Names of the columns, and what they are.
    pub columns: (&'a str, &'a [String]),
    /// Value at the ends of the colour scale, whose middle is 0; see [`reach`].
    pub reach: f32,
}

/// A heat map of `values` `[row, column]` on a diverging scale centred at 0, first row on top.
#[must_use]
pub fn heat_map(title: &str, values: &ArrayView2<f32>, labels: HeatMapLabels) -> Chart {
    let HeatMapLabels { rows: (row_axis, rows), columns: (column_axis, columns), reach } = labels;
    let longest = |names: &[String]| 7 * names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    let width = (130 + longest(rows) + 21 * columns.len()).clamp(330, 1080);
    let height = (110 + longest(columns) + 21 * rows.len()).clamp(200, 1200);

    let z: Vec<Vec<f32>> = values.rows().into_iter().map(|row| row.to_vec()).collect();
    let ends = [-reach, 0.0, reach];
    let bar = ColorBar::new()
        .thickness(12)
        .tick_vals(ends.iter().map(|&v| f64::from(v)).collect())
        .tick_text(ends.iter().map(|v| format!("{v:.2}")).collect());
    let trace = HeatMap::new(columns.to_vec(), rows.to_vec(), z)
        .color_scale(diverging())
        .zmin(f64::from(-reach))
        .zmax(f64::from(reach))
        .color_bar(bar)
        .hover_template("%{y} &#183; %{x}<br>%{z:.4f}<extra></extra>");
    let mut plot = Plot::new();
    plot.add_trace(trace);
    let axis = |name: &str, n: usize| {
        // Token labels such as "3" would be taken for numbers, and a repeated one for the same column.
        let axis = Axis::new().title(Title::from(name)).type_(AxisType::Category).auto_margin(true);
        // Every label where there is room for it.
        if n <= 40 { axis.dtick(1.0).tick_font(Font::new().size(11)) } else { axis }
    };
    // Categories are numbered from 0; from last to first puts the first row on top.
    let first_on_top = vec![rows.len() as f64 - 0.5, -0.5];
    plot.set_layout(
        layout(title)
            .x_axis(axis(column_axis, columns.len()).tick_angle(-60.0))
            .y_axis(axis(row_axis, rows.len()).range(first_on_top)),
    );
    Chart { plot_json: plot.to_json(), width, height }
}

/// A scatter of `points` (x, y, name), with the line on which both agree.
#[must_use]
pub fn scatter(title: &str, points: &[(f32, f32, String)], [x_axis, y_axis]: [&str; 2]) -> Chart {
    let values = points.iter().flat_map(|(x, y, _)| [*x, *y]);
    let (low, high) = values.fold((0.0_f32, 0.0_f32), |(low, high), v| (low.min(v), high.max(v)));
    let margin = 0.05 * (high - low).max(f32::MIN_POSITIVE);
    let ends = vec![low - margin, high + margin];
    let agreement = Scatter::new(ends.clone(), ends)
        .mode(Mode::Lines)
        .line(Line::new().color("#999999").dash(DashType::Dash).width(1.0))
        .hover_template("attribution = exact effect<extra></extra>")
        .show_legend(false);
    let (x, y): (Vec<_>, Vec<_>) = points.iter().map(|(x, y, _)| (*x, *y)).unzip();
    let names: Vec<_> = points.iter().map(|(_, _, name)| name.clone()).collect();
    let nodes = Scatter::new(x, y)
        .mode(Mode::Markers)
        .marker(Marker::new().color("#2166ac").size(8).opacity(0.75))
        .text_array(names)
        .hover_template("%{text}<br>exact %{x:.4f}<br>attribution %{y:.4f}<extra></extra>")
        .show_legend(false);
    let mut plot = Plot::new();
    plot.add_trace(agreement);
    plot.add_trace(nodes);
    let axis = |name: &str| Axis::new().title(Title::from(name)).zero_line(true).auto_margin(true);
    plot.set_layout(layout(title).x_axis(axis(x_axis)).y_axis(axis(y_axis)));
    Chart { plot_json: plot.to_json(), width: 560, height: 480 }
}

fn layout(title: &str) -> Layout {
    Layout::new()
        .title(Title::from(title).font(Font::new().size(15)).x(0.02))
        .font(Font::new().family("system-ui, sans-serif").size(12))
        .margin(Margin::new().left(60).right(20).top(50).bottom(60))
        .plot_background_color("#ffffff")
        .paper_background_color("#ffffff")
}
