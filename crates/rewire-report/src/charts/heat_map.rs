//! Heat maps: a cell per value, of a size that its map needs, on a scale that is centered at 0.

use ndarray::{Array2, ArrayView2};
use plotly::common::{ColorBar, ColorScale, ColorScaleElement, Font, ThicknessMode, Title};
use plotly::layout::{Axis, AxisType, Margin};
use plotly::{HeatMap, Plot};

use crate::charts::common::{Chart, Meaning, OPPOSES, SUPPORTS, layout, short, shown};
use crate::charts::support::Support;
use crate::numbers;

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

/// Returns a heat map of `values` `[row, column]` on a diverging color scale centered at 0, blue
/// above 0 and red below, with the first row on top.
#[must_use]
pub fn heat_map(title: &str, values: &ArrayView2<f32>, labels: HeatMapLabels) -> Chart {
    effect_map(title, values, labels, Meaning::default(), None)
}

/// Returns a heat map of effects `[row, column]`: blue supports the behavior and red opposes it,
/// the unit is in the title, on the color bar and in the hover text. The color scale never ends
/// below float32 rounding. `intervals` `[row, column]` are shown on hover.
#[must_use]
pub fn effect_map(
    title: &str,
    values: &ArrayView2<f32>,
    labels: HeatMapLabels,
    meaning: Meaning,
    intervals: Option<&Array2<[f32; 2]>>,
) -> Chart {
    let HeatMapLabels { rows: (row_axis, rows), columns: (column_axis, columns), reach } = labels;
    let reach = reach.max(meaning.floor);
    let color = |&v: &f32| if v.abs() < meaning.floor { 0.0 } else { shown(v, reach) };
    let z: Vec<Vec<f32>> = values.rows().into_iter().map(|row| row.iter().map(color).collect()).collect();
    let node = node_name([row_axis, column_axis]);
    let interval = if intervals.is_some() { "<br>%{text}" } else { "" };
    let size = Size::of(title, rows, columns, meaning);
    let mut trace = HeatMap::new(columns.to_vec(), rows.to_vec(), z)
        .color_scale(color_scale(meaning.support))
        .zmin(f64::from(-reach))
        .zmax(f64::from(reach))
        .color_bar(color_bar(reach, meaning, size.bar))
        .hover_template(format!("{node}<br>%{{z:.4g}}{}{interval}<extra></extra>", meaning.suffix()));
    if let Some(intervals) = intervals {
        let text = |ends: &[f32; 2]| numbers::interval(*ends);
        trace = trace.text_matrix(intervals.rows().into_iter().map(|row| row.iter().map(text).collect()).collect());
    }
    let mut plot = Plot::new();
    plot.add_trace(trace);
    // Categories are numbered from 0. A range from last to first puts the first row on top.
    let first_on_top = vec![rows.len() as f64 - 0.5, -0.5];
    let [left, right, top, bottom] = size.margins;
    plot.set_layout(
        layout(&meaning.titled(title))
            .margin(Margin::new().left(left).right(right).top(top).bottom(bottom))
            .x_axis(axis(column_axis, columns.len(), size.cell[0]).tick_angle(size.angle))
            .y_axis(axis(row_axis, rows.len(), size.cell[1]).range(first_on_top)),
    );
    Chart { plot_json: plot.to_json(), width: size.width, height: size.height }
}

/// Returns the hover text that names a cell by its row `%{y}` and its column `%{x}`.
fn node_name([rows, columns]: [&str; 2]) -> &'static str {
    match (rows.trim_end_matches("_from_end"), columns.trim_end_matches("_from_end")) {
        ("layer", "head") => "%{y}%{x}",
        ("", _) => "%{x}",
        (_, "") => "%{y}",
        ("dest", "src") => "from %{y} to %{x}",
        ("receiver" | "end", "sender" | "start") => "%{x} → %{y}",
        (_, "pos" | "position" | "dest") => "%{y} @ %{x}",
        _ => "%{y} · %{x}",
    }
}

/// Returns a color scale from the lowest to the highest value, with a middle color that is near the
/// color of the page.
fn color_scale(support: Support) -> ColorScale {
    let mut colors = [OPPOSES, "#ef8a62", "#f7f7f7", "#67a9cf", SUPPORTS];
    if support == Support::Below {
        colors.reverse();
    }
    let stops = colors.iter().enumerate().map(|(i, color)| ColorScaleElement(i as f64 / 4.0, (*color).to_owned()));
    ColorScale::Vector(stops.collect())
}

/// Returns the color bar: its ends say what the colors mean, the word above it is the unit.
fn color_bar(reach: f32, meaning: Meaning, length: usize) -> ColorBar {
    let ends = [-reach, 0.0, reach];
    let mut text = ends.map(short);
    if let Some([low, high]) = meaning.support.words() {
        text[0] += &format!(" {low}");
        text[2] += &format!(" {high}");
    }
    let bar = ColorBar::new()
        .thickness(12)
        .len(length)
        .len_mode(ThicknessMode::Pixels)
        .tick_vals(ends.iter().map(|&v| f64::from(v)).collect())
        .tick_text(text.to_vec());
    match meaning.short_unit() {
        "" => bar,
        unit => bar.title(Title::from(unit).font(Font::new().size(11))),
    }
}

/// Most rows or columns with one label each.
const MOST_LABELS: usize = 150;
/// Narrowest cell whose label has the full size.
const ROOMY: usize = 16;

fn axis(name: &str, n: usize, cell: usize) -> Axis {
    // Without categories, plotly reads a token label such as "3" as a number, and a repeated label
    // as the same column.
    let axis = Axis::new().title(Title::from(name)).type_(AxisType::Category).auto_margin(true);
    match cell {
        _ if n > MOST_LABELS => axis,
        cell if cell >= ROOMY => axis.dtick(1.0).tick_font(Font::new().size(11)),
        _ => axis.dtick(1.0).tick_font(Font::new().size(9)),
    }
}

/// The sizes of a map, in pixels.
#[derive(Debug, PartialEq)]
struct Size {
    /// Width and height of a cell.
    cell: [usize; 2],
    /// Space on the left, on the right, above and below the cells.
    margins: [usize; 4],
    /// Length of the color bar.
    bar: usize,
    /// Angle of the column labels, in degrees.
    angle: f64,
    width: usize,
    height: usize,
}

impl Size {
    /// Returns the sizes of a map. Few cells are large, many are small, and labels have space.
    fn of(title: &str, rows: &[String], columns: &[String], meaning: Meaning) -> Self {
        let longest = |names: &[String]| 7 * names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let (row_label, column_label) = (longest(rows), longest(columns));
        let mut cell = [cell(columns.len(), across(columns.len())), cell(rows.len(), 520)];
        // Short column labels are easier to read when they are level.
        let is_level = column_label + 4 <= cell[0].max(34) && columns.len() * (column_label + 4) <= 400;
        if is_level {
            cell[0] = cell[0].max(column_label + 4);
        }
        let [across, down] = [cell[0] * columns.len(), cell[1] * rows.len()];
        let bar = down.max(if meaning.support == Support::Unknown { 90 } else { 120 });
        let beside = if meaning.support == Support::Unknown { 70 } else { 125 };
        let top = if meaning.unit.is_empty() { 50 } else { 64 };
        // Slanted labels reach down by the sine of their angle.
        let labels = if is_level { 20 } else { column_label * 7 / 8 };
        let overhang = (bar - down) / 2;
        let [top, bottom] = [top.max(overhang + 40), (labels + 40).max(overhang + 10)];
        let left = 45 + row_label;
        let width =
            (left + across + beside).max(40 + 9 * title.chars().count()).max(60 + 7 * meaning.unit.chars().count());
        Self {
            cell,
            margins: [left, width - left - across, top, bottom],
            bar,
            angle: if is_level { 0.0 } else { -60.0 },
            width,
            height: top + down + bottom,
        }
    }
}

/// Returns the width that `columns` columns share. Two maps of few columns fit side by side.
fn across(columns: usize) -> usize {
    if columns <= 22 { 352 } else { 620 }
}

/// Returns the size of one of `n` cells that share about `room` pixels. A cell is large enough for
/// its label, or at least one pixel if there are too many cells for labels.
fn cell(n: usize, room: usize) -> usize {
    match n {
        n if n <= MOST_LABELS => (room / n.max(1)).clamp(13, 30),
        // A map of narrow columns that fits the page is better than one that scrolls.
        n if 940 / n >= 3 => 940 / n,
        n => (1700 / n).clamp(1, 12),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn names(prefix: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{prefix}{i}")).collect()
    }

    fn drawn(values: &Array2<f32>, meaning: Meaning, intervals: Option<&Array2<[f32; 2]>>) -> Value {
        let (rows, columns) = (names("L", values.nrows()), names("H", values.ncols()));
        let reach = color_limit([values.view()]);
        let labels = HeatMapLabels { rows: ("layer", &rows), columns: ("head", &columns), reach };
        let chart = effect_map("head_z", &values.view(), labels, meaning, intervals);
        serde_json::from_str(&chart.plot_json).unwrap()
    }

    #[test]
    fn cells_shrink_as_a_map_grows() {
        let size = |rows, columns| Size::of("head_z", &names("L", rows), &names("H", columns), Meaning::default());
        assert_eq!(size(4, 8).cell, [30, 30]);
        assert_eq!(size(12, 12).cell, [29, 30]);
        assert!(size(8, 22).width <= 552, "two maps fit side by side");
        assert_eq!(size(48, 40).cell, [15, 13]);
        assert!(size(144, 15).height < 2100 && size(144, 15).width < 800);
        // A wide map has columns that can be seen.
        assert_eq!(size(4, 512).cell[0], 3);
        assert!(size(4, 256).width <= 1090, "a layer of 256 neurons fits the page");
    }

    #[test]
    fn labels_have_space_beside_and_below_the_cells() {
        let tokens = vec![" Montgomery_14".to_owned(); 15];
        let size = Size::of("resid_pre", &names("L", 4), &tokens, Meaning::default());
        assert_eq!(size.angle, -60.0);
        assert!(size.margins[3] >= 7 * 14 * 7 / 8 + 40, "{size:?}");
        let size = Size::of("resid_pre", &tokens, &names("L", 4), Meaning::default());
        assert_eq!(size.angle, 0.0);
        assert!(size.margins[0] >= 7 * 14, "{size:?}");
    }

    #[test]
    fn the_color_of_support_is_at_the_end_of_the_scale_that_supports() {
        let values = ndarray::arr2(&[[0.5, -0.25]]);
        let colors = |support| {
            let drawn = drawn(&values, Meaning { unit: "logits", support, floor: 1e-5 }, None);
            let trace = &drawn["data"][0];
            (trace["colorscale"][4][1].clone(), trace["colorbar"]["ticktext"][2].clone())
        };
        assert_eq!(colors(Support::Above), (SUPPORTS.into(), "0.50 supports".into()));
        assert_eq!(colors(Support::Below), (OPPOSES.into(), "0.50 opposes".into()));
        assert_eq!(colors(Support::Unknown), (SUPPORTS.into(), "0.50".into()));
    }

    #[test]
    fn rounding_has_the_middle_color_and_does_not_stretch_the_scale() {
        let values = ndarray::arr2(&[[4e-6, -9e-6]]);
        let meaning = Meaning { unit: "logits", support: Support::Above, floor: 1e-5 };
        let trace = drawn(&values, meaning, None)["data"][0].clone();
        assert_eq!(trace["z"], serde_json::json!([[0.0, 0.0]]));
        assert!(trace["zmax"].as_f64().unwrap() > 0.99e-5);
    }

    #[test]
    fn a_cell_shows_its_node_its_value_with_unit_and_its_interval() {
        let intervals = Array2::from_elem((1, 2), [0.25, 0.75]);
        let meaning = Meaning { unit: "logits", support: Support::Above, floor: 1e-5 };
        let trace = drawn(&ndarray::arr2(&[[0.5, -0.25]]), meaning, Some(&intervals))["data"][0].clone();
        assert_eq!(trace["hovertemplate"], "%{y}%{x}<br>%{z:.4g} logits<br>%{text}<extra></extra>");
        assert_eq!(trace["text"][0][1], "0.2500 to 0.7500");
        assert_eq!(trace["colorbar"]["title"]["text"], "logits");
    }
}
