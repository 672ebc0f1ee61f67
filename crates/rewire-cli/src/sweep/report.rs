//! A sweep's report.

use ndarray::{Array2, ArrayD, Axis, Ix2};
use rewire_analysis::attribution::EdgeAttribution;
use rewire_analysis::patching::Screened;
use rewire_analysis::run::Scale;
use rewire_analysis::stats::NodeError;
use rewire_analysis::{Effects, Method, Outcome};
use rewire_report::Page;
use rewire_report::charts::{self, HeatMapLabels, Point};
use rewire_tasks::PromptPairs;

use super::arguments::Arguments;
use super::findings::Findings;
use super::paths;
use super::results::{COMPLETENESS, agreements, completeness_rows, top_table};
use super::shortened::{self, Shortened};
use crate::model::Source;
use crate::notices::new_page;
use crate::session::Session;
use rewire_report::names::numbered;
use rewire_report::names::{self, INPUTS};
use rewire_report::{Certainty, agreement, head_edges, screening};

/// Columns above which a heat map would show nothing.
const WIDEST: usize = 512;
/// Maps of one kind above which nobody would look at them.
const MOST_MAPS: usize = 64;
/// Points of a scatter above which the file grows and nothing is to be seen: those of largest error are drawn.
const MOST_POINTS: usize = 5000;
/// Rows of a table.
const TOP: usize = 20;

pub(super) fn page(
    session: &Session,
    source: &Source,
    pairs: &PromptPairs,
    found: &Findings,
    arguments: &Arguments,
) -> Page {
    let outcome = &found.outcome;
    let subtitle = format!(
        "{} · {}{} · {} pairs · {} · {} · {}, {}",
        source.name,
        outcome.method,
        arguments.paths.held(outcome.method),
        pairs.len(),
        outcome.direction,
        arguments.metric_name(),
        session.device(),
        arguments.numbers.told()
    );
    let mut page = new_page("Sweep", &subtitle, session, source, &found.warnings);
    baselines(&mut page, found);
    if let Some(shortened) = &found.shortened {
        against_float32(&mut page, shortened, arguments);
    }
    if let Some(screened) = &found.screened {
        screened_nodes(&mut page, screened, found, pairs);
    }
    for ((name, effects), certainty) in found.names.iter().zip(&outcome.effects).zip(&found.certainty) {
        page.section(name, &lead(outcome, name, arguments));
        node_effects(&mut page, outcome, effects, certainty, pairs);
    }
    if !found.completeness.is_empty() {
        completeness(&mut page, found);
    }
    if let Some(found) = &found.paths {
        head_edges(&mut page, found, pairs);
    }
    page
}

/// The metric of the unpatched runs, and the receivers that nothing reaches.
fn baselines(page: &mut Page, found: &Findings) {
    let outcome = &found.outcome;
    let [clean, corrupted] = outcome.baselines.means();
    page.section("Baselines", "The metric of the unpatched runs, mean over prompts.");
    let row = |name: &str, value: f64| vec![name.to_owned(), format!("{value:.4}")];
    page.table(&["run", outcome.metric], vec![row("clean", clean), row("corrupted", corrupted)]);
    if !found.unreached.is_empty() {
        page.text(&paths::told(&found.unreached));
    }
}

/// What shorter numbers cost on a sample of prompts.
fn against_float32(page: &mut Page, shortened: &Shortened, arguments: &Arguments) {
    page.section(
        "Against float32",
        "What shorter numbers cost: the same sweep of a few prompts in them and in float32. Effects smaller than the errors \
         here are not known.",
    );
    page.text(&format!("{}:", shortened.heading(&arguments.numbers)));
    page.table(&shortened::HEADER, shortened.rows());
}

/// The nodes that were patched exactly because attribution ranked them first.
fn screened_nodes(page: &mut Page, screened: &Screened, found: &Findings, pairs: &PromptPairs) {
    page.section("Screened, then verified", "Attribution ranked all nodes; the first were patched exactly.");
    page.text(&screening::in_words(screened, pairs));
    page.table(&screening::HEADER, screening::rows(screened, pairs, 50));
    let agreements = agreements(found);
    page.text("Attribution against the exact effects of the verified nodes (all of them, if none was skipped):");
    page.table(&agreement::HEADER, agreement::rows(&agreements));
    for (agreement, effects) in agreements.iter().zip(&found.outcome.effects) {
        let point = |n: &NodeError| Point {
            x: n.exact,
            y: n.estimate,
            layer: n.place[0],
            name: names::of_node(effects, &n.place, pairs),
        };
        let points: Vec<Point> = agreement.errors.iter().take(MOST_POINTS).map(point).collect();
        let axes = ["exact effect (activation patching)", "attribution"];
        page.chart(charts::scatter(&agreement.kind.to_string(), &points, axes));
    }
}

/// The sentences that begin the section of a table: what its effects are, and in which unit.
fn lead(outcome: &Outcome, name: &str, arguments: &Arguments) -> String {
    let unit = match outcome.scale {
        Scale::Normalized => "Mean over prompts, as a share of clean less corrupted.",
        Scale::Metric => "Mean over prompts, as a change of the metric.",
    };
    match outcome.method {
        Method::Ablation => format!("{unit} The tensors hold the metric after each node was removed."),
        Method::IntegratedGradients => {
            format!("{unit} Below 0 is what supports the behavior: the line goes from the clean activation away.")
        }
        Method::PathPatching => format!("{unit} Along the paths to {} alone.", arguments.paths.named(name)),
        Method::LogitAttribution => {
            "What each node adds to the logit difference itself, in logits; of the residual stream, how \
                                     far the difference has come there. Mean over prompts."
                .to_owned()
        }
        _ => unit.to_owned(),
    }
}

/// Maps of the effects of one kind of nodes, and a table of the largest.
fn node_effects(page: &mut Page, outcome: &Outcome, effects: &Effects, certainty: &Certainty, pairs: &PromptPairs) {
    if let (Some(_), Some(note)) = (effects.prompts_by_position(), names::positions_note(pairs)) {
        page.text(&note);
    }
    maps(page, effects, pairs);
    let (header, rows) = top_table(outcome, effects, certainty, pairs, TOP);
    page.table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows);
    page.text(&certainty.in_words());
}

/// How far attributions are from summing to the change of the metric.
fn completeness(page: &mut Page, found: &Findings) {
    page.section(
        "Completeness",
        "Along each line the attributions must sum to the change of the metric from its clean end to the other. The gap is what \
         they miss it by, the largest of all prompts; a gap past the tolerance would have been an error.",
    );
    page.table(&COMPLETENESS, completeness_rows(&found.completeness));
}

/// Maps of the effects of paths between heads, and a table of the largest.
fn head_edges(page: &mut Page, found: &EdgeAttribution, pairs: &PromptPairs) {
    page.section(
        "head_edges",
        "Estimated effect of a head's output on a later head's query, key or value input, summed over positions. Rows are \
         ends, columns starts; the heads on the largest paths.",
    );
    if let Some(note) = names::positions_note(pairs) {
        page.text(&note);
    }
    let mean = found.mean();
    let sums = head_edges::over_positions(&mean);
    let chosen = busiest(&sums, 22);
    let all = head_edges::heads(mean.shape()[0], mean.shape()[1]);
    let labels: Vec<String> = chosen.iter().map(|&i| all[i].clone()).collect();
    let reach = charts::color_limit(sums.outer_iter());
    for (input, name) in INPUTS.into_iter().enumerate() {
        let map = head_edges::between(&sums, input, &chosen);
        let labels = HeatMapLabels { rows: ("end", &labels), columns: ("start", &labels), reach };
        page.chart(charts::heat_map(&format!("into the {name}"), &map.view(), labels));
    }
    page.table(&["path", "effect"], head_edges::largest(&mean, TOP));
}

/// The `n` heads on the largest paths, in the order of the model.
fn busiest(sums: &ndarray::Array3<f32>, n: usize) -> Vec<usize> {
    let heads = sums.shape()[1];
    let size = |h: usize| {
        let [ends, starts] =
            [Axis(1), Axis(2)].map(|axis| sums.index_axis(axis, h).fold(0.0_f32, |m, v| m.max(v.abs())));
        ends.max(starts)
    };
    let mut order: Vec<usize> = (0..heads).collect();
    order.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    order.truncate(n);
    order.sort_unstable();
    order
}

/// One map of [layer, last axis] a unit between them; one column where there is but the layer axis.
fn maps(page: &mut Page, effects: &Effects, pairs: &PromptPairs) {
    let mean = effects.mean();
    let axes = effects.axis_names();
    let shape = mean.shape().to_vec();
    let flat = |map: ArrayD<f32>| map.into_dimensionality::<Ix2>().ok();
    let maps: Vec<(String, Array2<f32>)> = match shape.len() {
        1 => mean.into_shape_with_order((shape[0], 1)).into_iter().map(|m| (effects.kind.to_string(), m)).collect(),
        2 => flat(mean).into_iter().map(|m| (effects.kind.to_string(), m)).collect(),
        3 if axes[2] == "head" => (0..shape[1])
            .filter_map(|h| Some((format!("head {h}"), flat(mean.index_axis(Axis(1), h).to_owned())?)))
            .collect(),
        4 => (0..shape[0] * shape[1])
            .filter_map(|i| {
                let (layer, head) = (i / shape[1], i % shape[1]);
                let map = mean.index_axis(Axis(0), layer).index_axis(Axis(0), head).to_owned();
                Some((rewire_report::names::head_name(layer, head), flat(map)?))
            })
            .collect(),
        _ => Vec::new(),
    };
    if maps.is_empty() || maps.len() > MOST_MAPS || maps.iter().any(|(_, map)| map.ncols() > WIDEST) {
        page.text("Too many nodes for heat maps; the largest are below, all are in effects.safetensors.");
        return;
    }
    let reach = charts::color_limit(maps.iter().map(|(_, map)| map.view()));
    let (rows, columns) = match shape.len() {
        1 => ("layer", ""),
        4 => ("dest", "src"),
        _ => ("layer", axes.last().copied().unwrap_or("layer")),
    };
    for (title, map) in maps {
        let [row_names, column_names] = [(rows, map.nrows()), (columns, map.ncols())].map(|(axis, n)| match axis {
            "" => vec![String::new()],
            "neuron" => numbered("N", n),
            axis => names::of_axis(axis, n, pairs),
        });
        let labels = HeatMapLabels { rows: (rows, &row_names), columns: (columns, &column_names), reach };
        page.chart(charts::heat_map(&title, &map.view(), labels));
    }
}
