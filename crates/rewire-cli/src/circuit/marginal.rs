//! The marginal effects of a circuit's edges, as tables and rows.

use ndarray::Array1;
use rewire_circuits::MarginalEffect;
use rewire_report::numbers::{interval, number};
use rewire_report::{Quantity, Table};
use serde_json::{Value, json};

/// Header of [`rows`].
pub(super) const HEADER: [&str; 3] = ["edge", "marginal effect", "95% interval"];

/// The explanation of the rows in a report.
pub(super) const EXPLANATION: &str = "The faithfulness of the circuit minus that without one edge, for the edges of \
                                      largest score. Above 0, the circuit needs the edge. Intervals are 95% bootstrap \
                                      intervals over prompts, the same prompts with the edge and without it.";

/// Returns a row for each edge.
pub(super) fn rows(effects: &[MarginalEffect]) -> Vec<Vec<String>> {
    let ends = |effect: &MarginalEffect| effect.interval.unwrap_or([f64::NAN; 2]).map(|end| end as f32);
    effects.iter().map(|effect| vec![effect.edge.to_string(), number(effect.effect), interval(ends(effect))]).collect()
}

/// Returns how many of the edges the circuit needs.
pub(super) fn needed(effects: &[MarginalEffect]) -> String {
    if effects.iter().all(|effect| effect.interval.is_none()) {
        return "-".to_owned();
    }
    format!("{} of {}", effects.iter().filter(|effect| effect.is_needed()).count(), effects.len())
}

/// Returns the tables of circuit number `number`: the effects, and the ends of their intervals.
pub(super) fn tables(number: usize, effects: &[MarginalEffect]) -> Vec<Table> {
    if effects.is_empty() {
        return Vec::new();
    }
    let table = |suffix: &str, of: &dyn Fn(&MarginalEffect) -> f64| Table {
        name: format!("circuit.marginal.{number}{suffix}"),
        axes: vec!["edge".to_owned()],
        values: Array1::from_iter(effects.iter().map(|effect| of(effect) as f32)).into_dyn(),
        nodes: effects.iter().map(|effect| effect.edge.to_string()).collect(),
        quantity: Quantity::Other,
        ..Table::default()
    };
    let end = |end: usize| move |effect: &MarginalEffect| effect.interval.map_or(f64::NAN, |ends| ends[end]);
    vec![table("", &|effect| effect.effect), table(".low", &end(0)), table(".high", &end(1))]
}

/// Returns the effects for effects.json.
pub(super) fn describe(effects: &[MarginalEffect]) -> Value {
    let of = |effect: &MarginalEffect| json!([effect.edge.to_string(), effect.effect, effect.interval]);
    effects.iter().map(of).collect::<Vec<_>>().into()
}
