//! The curve of faithfulness by size, as tables, rows and a chart.

use ndarray::{Array1, ArrayD};
use rewire_circuits::{CurveIntervals, JudgedCurve};
use rewire_report::charts::{Chart, curves};
use rewire_report::numbers::number;
use rewire_report::{Quantity, Table};
use serde_json::{Value, json};

/// Header of [`rows`].
pub(crate) const HEADER: [&str; 6] =
    ["size", "edges", "after pruning", "faithfulness", "95% over prompts", "on other prompts (95%)"];

/// Returns the tables of MIB's figures: the faithfulness and the number of edges of each size, and
/// the areas, with the ends of their intervals.
pub(crate) fn tables(judged: &JudgedCurve) -> Vec<Table> {
    let JudgedCurve { sized, curve, over_prompts, over_choice, .. } = judged;
    let table = |name: &str, axis: &str, values: Vec<f64>| Table {
        name: format!("circuit.{name}"),
        axes: vec![axis.to_owned()],
        values: Array1::from_iter(values.into_iter().map(|value| value as f32)).into_dyn(),
        quantity: Quantity::Other,
        ..Table::default()
    };
    let kept = sized.circuits.iter().map(|circuit| circuit.len() as f64).collect();
    let mut tables = vec![
        table("faithfulness", "size", curve.faithfulness.clone()),
        table("kept", "size", kept),
        table("area", "figure", vec![curve.cpr, curve.cmd]),
    ];
    let mut ends = |name: &str, intervals: &CurveIntervals| {
        for (end, suffix) in ["low", "high"].into_iter().enumerate() {
            let faithfulness = intervals.faithfulness.iter().map(|interval| interval[end]).collect();
            tables.push(table(&format!("faithfulness.{name}.{suffix}"), "size", faithfulness));
            let areas = vec![intervals.cpr[end], intervals.cmd[end]];
            tables.push(table(&format!("area.{name}.{suffix}"), "figure", areas));
        }
    };
    over_prompts.iter().for_each(|intervals| ends("prompts", intervals));
    over_choice.iter().for_each(|choice| ends("choice", &choice.intervals));
    if let Some(choice) = over_choice {
        tables.push(table("faithfulness.choice", "size", choice.mean.faithfulness.clone()));
        tables.push(table("area.choice", "figure", vec![choice.mean.cpr, choice.mean.cmd]));
    }
    tables
}

/// Returns the table of the metric of circuits, `[prompt, circuit]`.
pub(crate) fn metric_table(values: ArrayD<f32>) -> Table {
    Table {
        name: "circuit.metric".to_owned(),
        axes: ["prompt", "circuit"].map(str::to_owned).to_vec(),
        values,
        quantity: Quantity::Other,
        ..Table::default()
    }
}

/// Returns a row for each size, and one for each area.
pub(crate) fn rows(judged: &JudgedCurve) -> Vec<Vec<String>> {
    let JudgedCurve { sized, curve, over_prompts, over_choice, .. } = judged;
    let mut rows: Vec<Vec<String>> = (0..sized.sizes.len())
        .map(|i| {
            vec![
                sized.sizes[i].to_string(),
                sized.budgets[i].to_string(),
                sized.circuits[i].len().to_string(),
                number(curve.faithfulness[i]),
                over_prompts.as_ref().map_or_else(String::new, |found| range(found.faithfulness[i])),
                over_choice.as_ref().map_or_else(String::new, |choice| {
                    with_range(choice.mean.faithfulness[i], choice.intervals.faithfulness[i])
                }),
            ]
        })
        .collect();
    type Of = fn(&CurveIntervals) -> [f64; 2];
    let areas: [(&str, f64, Option<f64>, Of); 2] = [
        ("CPR", curve.cpr, over_choice.as_ref().map(|choice| choice.mean.cpr), |found| found.cpr),
        ("CMD", curve.cmd, over_choice.as_ref().map(|choice| choice.mean.cmd), |found| found.cmd),
    ];
    for (name, area, on_others, of) in areas {
        let others = over_choice.as_ref().zip(on_others);
        rows.push(vec![
            name.to_owned(),
            String::new(),
            String::new(),
            number(area),
            over_prompts.as_ref().map_or_else(String::new, |found| range(of(found))),
            others.map_or_else(String::new, |(choice, mean)| with_range(mean, of(&choice.intervals))),
        ]);
    }
    rows
}

fn range([low, high]: [f64; 2]) -> String {
    format!("{} to {}", number(low), number(high))
}

fn with_range(mean: f64, interval: [f64; 2]) -> String {
    format!("{} ({})", number(mean), range(interval))
}

/// Returns the chart of the faithfulness by size, with the band over prompts.
pub(crate) fn chart(judged: &JudgedCurve) -> Chart {
    let JudgedCurve { sized, curve, over_prompts, over_choice, .. } = judged;
    let line = |name: &str, values: Vec<f64>| (name.to_owned(), values.iter().map(|value| *value as f32).collect());
    let mut lines = vec![line("faithfulness", curve.faithfulness.clone())];
    if let Some(found) = over_prompts {
        lines.push(line("95% over prompts, low", found.faithfulness.iter().map(|interval| interval[0]).collect()));
        lines.push(line("95% over prompts, high", found.faithfulness.iter().map(|interval| interval[1]).collect()));
    }
    if let Some(choice) = over_choice {
        lines.push(line("on other prompts", choice.mean.faithfulness.clone()));
    }
    curves("Faithfulness by size", &sized.sizes, &lines, ["share of all edges", "faithfulness"])
}

/// Returns the figures for effects.json.
pub(crate) fn describe(judged: &JudgedCurve) -> Value {
    let JudgedCurve { sized, over_prompts, over_choice, .. } = judged;
    json!({
        "ranking": sized.ranking.to_string(),
        "sizes": sized.sizes,
        "edges_before_pruning": sized.budgets,
        "figures": ["CPR", "CMD"],
        "faithfulness_is": "(m(circuit) - m(empty)) / (m(model) - m(empty)), m the mean of the metric over prompts",
        "area_is": "trapezoid area over the sizes: CPR of the faithfulness, CMD of |1 - faithfulness|",
        "prompts": over_prompts.is_some().then_some("ends of 95% bootstrap intervals over clusters of prompts"),
        "choice": over_choice.is_some().then_some(
            "circuits chosen on one half of the prompts and judged on the other: mean and 95% interval over 10 \
             halves, with resamples of the judging prompts"
        ),
    })
}
