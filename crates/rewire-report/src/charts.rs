//! The charts of a report: heat maps, rankings, scatters, curves and bars, each with its title,
//! labels and hover text.
//!
//! Colors are those of a light page. The script of the page replaces them on a dark page, so every
//! color here must be in its table.

pub(crate) mod common;
mod costs;
mod heat_map;
mod ranking;
mod scatter;
mod series;
mod support;

pub use common::{Chart, Meaning};
pub use costs::{Named, costs};
pub use heat_map::{HeatMapLabels, color_limit, effect_map, heat_map};
pub use ranking::{Ranked, ranking};
pub use scatter::{Point, StraightLine, scatter, scatter_with};
pub use series::{Bars, RangedLine, bars, curves, ranged_lines, ranked_line};
pub use support::Support;

#[cfg(test)]
mod tests {
    #[test]
    fn every_color_of_a_chart_has_a_counterpart_on_a_dark_page() {
        let script = include_str!("page/script.js");
        let sources = [
            include_str!("charts/common.rs"),
            include_str!("charts/costs.rs"),
            include_str!("charts/heat_map.rs"),
            include_str!("charts/ranking.rs"),
            include_str!("charts/scatter.rs"),
            include_str!("charts/series.rs"),
        ];
        let colors = sources.iter().flat_map(|source| source.split("\"#").skip(1)).filter_map(|rest| rest.get(..6));
        for color in colors.filter(|color| color.chars().all(|c| c.is_ascii_hexdigit())) {
            assert!(script.contains(&format!("'#{color}': ")), "#{color} has no counterpart in page/script.js");
        }
    }
}
