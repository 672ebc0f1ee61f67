//! A ranking: one bar per node, in the colors of support, with its interval.

use plotly::common::{ErrorData, ErrorType, Font, Marker, Orientation, Title};
use plotly::layout::{Axis, AxisType, Margin};
use plotly::{Bar, Plot};

use crate::charts::common::{Chart, Meaning, OPPOSES, SUPPORTS, layout, shown};
use crate::numbers;

/// One node of a ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Name of the node, unique in the ranking.
    pub name: String,
    /// Its effect.
    pub effect: f32,
    /// Lower and upper end of the effect's interval, if it is known.
    pub interval: Option<[f32; 2]>,
}

/// Returns horizontal bars of effects, the first node on top. Blue supports the behavior and red
/// opposes it; without known support, blue is above 0.
#[must_use]
pub fn ranking(title: &str, nodes: &[Ranked], meaning: Meaning) -> Chart {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let effects: Vec<f32> = nodes.iter().map(|node| shown(node.effect, 0.0)).collect();
    let color = |node: &Ranked| match meaning.support.supports(node.effect) {
        Some(true) => SUPPORTS,
        Some(false) => OPPOSES,
        None if node.effect < 0.0 => OPPOSES,
        None => SUPPORTS,
    };
    let has_intervals = nodes.iter().any(|node| node.interval.is_some());
    let hover =
        |node: &Ranked| node.interval.map_or_else(String::new, |ends| format!("<br>{}", numbers::interval(ends)));
    let mut bars = Bar::new(effects, names.clone())
        .orientation(Orientation::Horizontal)
        .marker(Marker::new().color_array(nodes.iter().map(color).collect::<Vec<_>>()))
        .hover_text_array(nodes.iter().map(hover).collect::<Vec<_>>())
        .hover_template(format!("%{{y}}<br>%{{x:.4g}}{}%{{hovertext}}<extra></extra>", meaning.suffix()))
        .show_legend(false);
    if has_intervals {
        let reach = |end: usize| {
            let ends =
                nodes.iter().map(|node| node.interval.map_or(0.0, |ends| f64::from((ends[end] - node.effect).abs())));
            ends.map(|size| if size.is_nan() { 0.0 } else { size }).collect::<Vec<f64>>()
        };
        bars = bars.error_x(
            ErrorData::new(ErrorType::Data)
                .symmetric(false)
                .array(reach(1))
                .array_minus(reach(0))
                .thickness(1.5)
                .color("#999999"),
        );
    }
    let mut plot = Plot::new();
    plot.add_trace(bars);
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let [left, height] = [30 + 8 * longest, 24 * nodes.len()];
    let unit = match meaning.support.words() {
        Some([low, high]) => format!("← {low} · {} · {high} →", meaning.unit),
        None => meaning.unit.to_owned(),
    };
    let first_on_top = vec![nodes.len() as f64 - 0.5, -0.5];
    let x = Axis::new().title(Title::from(unit)).zero_line(true).auto_margin(true);
    let y = Axis::new().type_(AxisType::Category).auto_margin(true).dtick(1.0).range(first_on_top);
    plot.set_layout(
        layout(title)
            .margin(Margin::new().left(left).right(30).top(45).bottom(50))
            .x_axis(x)
            .y_axis(y.tick_font(Font::new().size(12))),
    );
    Chart { plot_json: plot.to_json(), width: (left + 520).min(960), height: height + 100 }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::charts::support::Support;

    #[test]
    fn bars_have_the_color_of_support_and_the_ends_of_their_intervals() {
        let node = |name: &str, effect, interval| Ranked { name: name.to_owned(), effect, interval };
        let nodes = [node("L1H2", -0.5, Some([-0.75, -0.25])), node("L0H0", 0.25, None)];
        let meaning = Meaning { unit: "logits", support: Support::Below, floor: 1e-5 };
        let chart = ranking("Largest effects", &nodes, meaning);
        let drawn: Value = serde_json::from_str(&chart.plot_json).unwrap();
        let bars = &drawn["data"][0];
        assert_eq!(bars["marker"]["color"], serde_json::json!([SUPPORTS, OPPOSES]));
        assert_eq!(bars["hovertext"], serde_json::json!(["<br>-0.7500 to -0.2500", ""]));
        assert_eq!(bars["error_x"]["array"], serde_json::json!([0.25, 0.0]));
        assert_eq!(drawn["layout"]["xaxis"]["title"]["text"], "← supports · logits · opposes →");
    }
}
