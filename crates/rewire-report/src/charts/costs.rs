//! Named points over a logarithmic axis: what a method costs, and what it gives.

use plotly::common::{Marker, Mode, Position, Title};
use plotly::layout::{Axis, AxisType};
use plotly::{Plot, Scatter};

use crate::charts::common::{Chart, layout};

/// A point with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The name, beside the point.
    pub name: String,
    /// Horizontal coordinate, above 0.
    pub x: f64,
    /// Vertical coordinate.
    pub y: f64,
}

/// Returns points with their names over a logarithmic x axis, and a y axis from 0.
#[must_use]
pub fn costs(title: &str, points: &[Named], [x_axis, y_axis]: [&str; 2]) -> Chart {
    let of = |coordinate: fn(&Named) -> f64| points.iter().map(coordinate).collect::<Vec<_>>();
    let (x, y) = (of(|point| point.x), of(|point| point.y));
    let [low, high] = x.iter().fold([f64::MAX, f64::MIN_POSITIVE], |[low, high], x| [low.min(*x), high.max(*x)]);
    let top = y.iter().fold(0.0_f64, |top, y| top.max(*y));
    let trace = Scatter::new(x, y)
        .mode(Mode::MarkersText)
        .marker(Marker::new().color("#2166ac").size(9))
        .text_array(points.iter().map(|point| point.name.clone()).collect())
        .text_position(Position::MiddleRight)
        .hover_template("%{text}<br>%{x}: %{y:.3f}<extra></extra>")
        .show_legend(false);
    let mut plot = Plot::new();
    plot.add_trace(trace);
    // The names of the points on the right need room.
    let range = vec![(low / 1.5).log10(), (high * 4.0).log10()];
    let x_axis = Axis::new().title(Title::from(x_axis)).auto_margin(true).type_(AxisType::Log).range(range).dtick(1.0);
    let y_axis = Axis::new().title(Title::from(y_axis)).auto_margin(true).zero_line(true).range(vec![0.0, 1.1 * top]);
    plot.set_layout(layout(title).x_axis(x_axis).y_axis(y_axis));
    Chart { plot_json: plot.to_json(), width: 720, height: 420 }
}
