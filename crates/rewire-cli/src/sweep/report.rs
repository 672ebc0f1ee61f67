//! The report of a sweep.

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
use rewire_report::names::{self, INPUTS, counted, numbered};
use rewire_report::{Certainty, agreement, head_edges, screening};

/// Most columns of a heat map. The cells of a wider map are too narrow to see.
const WIDEST: usize = 512;
/// Most heat maps of one kind of node. A reader does not compare more.
const MOST_MAPS: usize = 64;
/// Most points of a scatter plot, those of largest error. More points enlarge the file and hide
/// each other.
const MOST_POINTS: usize = 5000;
/// Most rows of a table.
const TOP: usize = 20;

/// Returns the report.
pub(super) fn page(
    session: &Session,
    source: &Source,
    pairs: &PromptPairs,
    found: &Findings,
    arguments: &Arguments,
) -> Page {
    let outcome = &found.outcome;
    let subtitle = format!(
        "{} · {}{} · {} · {} · {} · {}, {}",
        source.name,
        outcome.method,
        arguments.paths.held(outcome.method),
        counted(pairs.len(), "pair"),
        outcome.direction,
        arguments.metric_name(),
        session.device(),
        arguments.numbers.summary()
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

/// Adds the baselines and the receivers that no path reaches.
fn baselines(page: &mut Page, found: &Findings) {
    let outcome = &found.outcome;
    let [clean, corrupted] = outcome.baselines.means();
    page.section("Baselines", "The metric on the unpatched runs, mean over prompts.");
    let row = |name: &str, value: f64| vec![name.to_owned(), format!("{value:.4}")];
    page.table(&["run", outcome.metric], vec![row("clean", clean), row("corrupted", corrupted)]);
    if !found.unreached.is_empty() {
        page.text(&paths::unreached_text(&found.unreached));
    }
}

/// Adds the errors of shorter numbers on a sample of prompts.
fn against_float32(page: &mut Page, shortened: &Shortened, arguments: &Arguments) {
    page.section(
        "Against float32",
        "The errors of shorter numbers: the sweep of a few prompts in shorter numbers, compared with the same sweep in \
         float32. Effects smaller than these errors are not reliable.",
    );
    page.text(&format!("{}:", shortened.heading(&arguments.numbers)));
    page.table(&shortened::HEADER, shortened.rows());
}

/// Adds the nodes that were patched exactly because attribution ranked them first.
fn screened_nodes(page: &mut Page, screened: &Screened, found: &Findings, pairs: &PromptPairs) {
    page.section(
        "Screened, then verified",
        "Attribution ranked all nodes. The nodes of largest attribution were patched exactly.",
    );
    page.text(&screening::in_words(screened, pairs));
    page.table(&screening::HEADER, screening::rows(screened, pairs, 50));
    let agreements = agreements(found);
    page.text("Attribution compared with the exact effects of the verified nodes (all nodes, if none was skipped):");
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

/// Returns the first sentences of the section of a table: the meaning of its effects and their
/// scale.
fn lead(outcome: &Outcome, name: &str, arguments: &Arguments) -> String {
    let unit = match outcome.scale {
        Scale::Normalized => "Mean over prompts, as a share of the clean minus the corrupted metric.",
        Scale::Metric => "Mean over prompts, as a change of the metric.",
    };
    match outcome.method {
        Method::Ablation => format!("{unit} effects.safetensors holds the metric after each node was ablated."),
        Method::IntegratedGradients => {
            format!(
                "{unit} The line starts at the clean activation. Therefore a node that supports the behavior has a \
                 negative attribution."
            )
        }
        Method::PathPatching => format!("{unit} Only along the paths to {}.", arguments.paths.named(name)),
        Method::LogitAttribution => {
            "The direct contribution of each node to the logit difference, in logits. For the residual stream, the \
             logit difference of the stream at that layer. Mean over prompts."
                .to_owned()
        }
        _ => unit.to_owned(),
    }
}

/// Adds heat maps of the effects of one kind of node, and a table of the largest effects.
fn node_effects(page: &mut Page, outcome: &Outcome, effects: &Effects, certainty: &Certainty, pairs: &PromptPairs) {
    if let (Some(_), Some(note)) = (effects.prompts_by_position(), names::positions_note(pairs)) {
        page.text(&note);
    }
    maps(page, effects, pairs);
    let (header, rows) = top_table(outcome, effects, certainty, pairs, TOP);
    page.table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows);
    page.text(&certainty.in_words());
}

/// Adds the gaps between sums of attributions and the change of the metric.
fn completeness(page: &mut Page, found: &Findings) {
    page.section(
        "Completeness",
        "The attributions along a line must sum to the change of the metric from the clean activation to the baseline. \
         The gap is the sum minus this change. The table shows the largest gap over all prompts. A gap above the \
         tolerance is an error and ends the sweep.",
    );
    page.table(&COMPLETENESS, completeness_rows(&found.completeness));
}

/// Adds heat maps of the effects of head edges, and a table of the largest effects.
fn head_edges(page: &mut Page, found: &EdgeAttribution, pairs: &PromptPairs) {
    page.section(
        "head_edges",
        "Estimated effect of each head edge: a head's output patched into a later head's query, key or value input, \
         summed over positions. Rows are edge ends, columns are edge starts. The maps show the heads of the largest \
         edges.",
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
    page.table(&["edge", "effect"], head_edges::largest(&mean, TOP));
}

/// Returns the `n` heads of the largest edges, in the order of the model.
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

/// Adds heat maps of the mean effects, each `[layer, last axis]`: one per index of the axis
/// between. Effects with only the layer axis get one map of one column. Effects with four axes get
/// one map per head, `[dest, src]`.
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
        page.text(
            "There are too many nodes for heat maps. The table shows the largest; effects.safetensors holds all.",
        );
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
