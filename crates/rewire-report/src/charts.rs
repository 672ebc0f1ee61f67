//! The charts of a report: heat maps, scatters, curves and bars, each with its title, labels and
//! hover text.

pub(crate) mod common;
mod scatter;
mod series;

use ndarray::ArrayView2;
use plotly::common::{ColorBar, ColorScale, ColorScaleElement, Font, Title};
use plotly::layout::{Axis, AxisType};
use plotly::{HeatMap, Plot};

use crate::charts::common::{layout, short, shown};

pub use common::Chart;
pub use scatter::{Point, StraightLine, scatter, scatter_with};
pub use series::{Bars, bars, curves, ranked_line};

/// Returns a color scale: red below 0, white at 0, blue above 0.
fn diverging() -> ColorScale {
    let stops = [(0.0, "#b2182b"), (0.25, "#ef8a62"), (0.5, "#f7f7f7"), (0.75, "#67a9cf"), (1.0, "#2166ac")];
    ColorScale::Vector(stops.map(|(at, color)| ColorScaleElement(at, color.to_owned())).to_vec())
}

/// Returns the largest absolute value in several maps. With this limit in all maps, equal colors
/// mean equal values.
#[must_use]
pub fn color_limit<'a>(maps: impl IntoIterator<Item = ArrayView2<'a, f32>>) -> f32 {
    let sizes =
        maps.into_iter().flat_map(|map| map.iter().map(|v| v.abs()).filter(|v| v.is_finite()).collect::<Vec<_>>());
    sizes.fold(f32::MIN_POSITIVE, f32::max)
}

/// Labels of a heat map, and the limit of its color scale.
#[derive(Debug, Clone, Copy)]
pub struct HeatMapLabels<'a> {
    /// Title of the row axis, and names of the rows.
    pub rows: (&'a str, &'a [String]),
    /// Title of the column axis, and names of the columns.
    pub columns: (&'a str, &'a [String]),
    /// Absolute value at both ends of the color scale, whose center is 0; see [`color_limit`].
    pub reach: f32,
}

/// Most rows with labels of full size.
const ROOMY: usize = 40;
/// Most rows with one label per row.
const CROWDED: usize = 150;

/// Returns a heat map of `values` `[row, column]` on a diverging color scale centered at 0, with
/// the first row on top.
#[must_use]
pub fn heat_map(title: &str, values: &ArrayView2<f32>, labels: HeatMapLabels) -> Chart {
    let HeatMapLabels { rows: (row_axis, rows), columns: (column_axis, columns), reach } = labels;
    let longest = |names: &[String]| 7 * names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    let size = |n: usize| if n <= ROOMY { 21 * n } else { 12 * n };
    // Columns narrower than a pixel would vanish. A chart with more columns is scrolled.
    let needed = (130 + longest(rows) + size(columns.len())).max(60 + 8 * title.chars().count());
    let width = needed.clamp(330, 1080.max(200 + columns.len()));
    let height = (110 + longest(columns) + size(rows.len())).clamp(200, 1900);

    let z: Vec<Vec<f32>> =
        values.rows().into_iter().map(|row| row.iter().map(|&v| shown(v, reach)).collect()).collect();
    let ends = [-reach, 0.0, reach];
    let bar = ColorBar::new()
        .thickness(12)
        .tick_vals(ends.iter().map(|&v| f64::from(v)).collect())
        .tick_text(ends.iter().map(|&v| short(v)).collect());
    let trace = HeatMap::new(columns.to_vec(), rows.to_vec(), z)
        .color_scale(diverging())
        .zmin(f64::from(-reach))
        .zmax(f64::from(reach))
        .color_bar(bar)
        .hover_template("%{y} &#183; %{x}<br>%{z:.4g}<extra></extra>");
    let mut plot = Plot::new();
    plot.add_trace(trace);
    let axis = |name: &str, n: usize| {
        // Without categories, plotly reads a token label such as "3" as a number, and a repeated
        // label as the same column.
        let axis = Axis::new().title(Title::from(name)).type_(AxisType::Category).auto_margin(true);
        // Shows every label if there is space.
        match n {
            n if n <= ROOMY => axis.dtick(1.0).tick_font(Font::new().size(11)),
            n if n <= CROWDED => axis.dtick(1.0).tick_font(Font::new().size(8)),
            _ => axis,
        }
    };
    // Categories are numbered from 0. A range from last to first puts the first row on top.
    let first_on_top = vec![rows.len() as f64 - 0.5, -0.5];
    plot.set_layout(
        layout(title)
            .x_axis(axis(column_axis, columns.len()).tick_angle(-60.0))
            .y_axis(axis(row_axis, rows.len()).range(first_on_top)),
    );
    Chart { plot_json: plot.to_json(), width, height }
}
