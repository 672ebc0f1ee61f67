//! The report of a sweep.

mod finding;
mod maps;

use ndarray::Axis;
use rewire_analysis::attribution::EdgeAttribution;
use rewire_analysis::edges::EdgeEffects;
use rewire_analysis::patching::Screened;
use rewire_analysis::run::Scale;
use rewire_analysis::stats::NodeError;
use rewire_analysis::{Effects, Method, Outcome};
use rewire_report::Page;
use rewire_report::charts::{self, HeatMapLabels, Meaning, Point, Support};
use rewire_report::names::{self, INPUTS, counted};
use rewire_report::numbers::number;
use rewire_report::{Certainty, agreement, edges, head_edges, noise, screening, units};
use rewire_tasks::PromptPairs;

use super::arguments::Arguments;
use super::findings::Findings;
use super::paths;
use super::results::{
    COMPLETENESS, agreements, by_estimator, by_rule, completeness_rows, marked_text, short_unit, top_table,
};
use super::shortened::{self, Shortened};
use crate::circuit::curve_rows;
use crate::edge_agreement;
use crate::model::Source;
use crate::notices::new_page;
use crate::session::Session;

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
        "{} · {}{}{} · {} · {} · {} · {}, {}",
        source.name,
        outcome.method,
        by_estimator(found.estimator) + &by_rule(arguments),
        arguments.paths.held(outcome.method),
        counted(pairs.len(), "pair"),
        outcome.direction,
        arguments.metric_in_words(),
        session.device(),
        arguments.numbers.summary()
    );
    let mut page = new_page("Sweep", &subtitle, session, &found.warnings);
    finding::add(&mut page, found, pairs, arguments);
    how_to_read(&mut page, found, source);
    baselines(&mut page, found);
    if let Some(marked) = marked_text(pairs, arguments) {
        page.text(&marked);
    }
    if let Some(screened) = &found.compared() {
        screened_nodes(&mut page, screened, found, pairs);
    }
    for ((name, effects), certainty) in found.names.iter().zip(&outcome.effects).zip(&found.certainty) {
        page.section(name, &lead(outcome, name, arguments));
        if found.estimator.is_unsigned() {
            page.text(
                "The estimates are sizes without a sign: mean absolute values over backward passes that each drop one \
                 layer (GradDrop). The exact effects of verified nodes have a sign.",
            );
        }
        let shown = arguments.intervals.then_some(certainty);
        let note = names::positions_note_of(effects.align, pairs).filter(|_| effects.prompts_by_position().is_some());
        note.iter().for_each(|note| page.text(note));
        if noise::is_all_below(&effects.mean().view(), noise::floor(outcome)) {
            page.text(&noise::all_below(noise::floor(outcome)));
            continue;
        }
        maps::add(&mut page, name, effects, shown, found.meaning(), pairs);
        top_nodes(&mut page, outcome, effects, certainty, pairs);
    }
    if !found.completeness.is_empty() {
        completeness(&mut page, found);
    }
    if let Some(paths) = &found.paths {
        head_edges(&mut page, paths, outcome, pairs);
    }
    if let Some(edges) = &found.edges {
        all_edges(&mut page, edges, outcome);
    }
    if let Some(verified) = &found.verified_edges {
        edge_agreement::add(&mut page, verified, short_unit(outcome));
    }
    if let Some(chosen) = &found.chosen {
        page.section(
            "edges",
            "Effect of each edge that was named: the output of one component (the writer), taken from the other run in \
             the input of one later component (the reader) alone.",
        );
        page.table(&["edge", &format!("effect ({})", found.meaning().unit)], chosen.rows());
    }
    if let Some(judged) = &found.circuits {
        page.section(
            "Circuits of the best edges",
            "The share of the behavior that circuits of the best edges keep, if every other edge carries the \
             corrupted prompt. 1 is the model, 0 the corrupted run. CPR is the area under the curve; CMD is the area \
             of its distance from 1. The last column chooses on one half of the prompts and judges on the other.",
        );
        page.chart(curve_rows::chart(judged));
        page.table(&curve_rows::HEADER, curve_rows::rows(judged));
    }
    if let Some(shortened) = &found.shortened {
        against_float32(&mut page, shortened, arguments);
    }
    page
}

/// Adds the meaning of the numbers and of the colors.
fn how_to_read(page: &mut Page, found: &Findings, source: &Source) {
    let meaning = found.meaning();
    page.section("How to read this", &format!("The unit of the effects is this: {}.", meaning.unit));
    let sign = match meaning.support {
        Support::Above => "an effect above 0",
        Support::Below => "an effect below 0",
        Support::Unknown => "no sign",
    };
    page.text(&format!(
        "Blue supports the behavior of the clean run and red opposes it, in every method. Here {sign} supports the \
         behavior."
    ));
    if meaning.floor > 0.0 {
        page.text(&format!(
            "Effects nearer to 0 than {:.0e} may be float32 rounding and have the middle color.",
            meaning.floor
        ));
    }
    if let Some(beginning) = source.beginning() {
        page.text(&format!("In prompts, {beginning}."));
    }
    page.text(
        "Point at a cell, a bar or a point to see its node and its numbers. Click the header of a column to sort the \
         table by it.",
    );
}

/// Adds the baselines and the receivers that no path reaches.
fn baselines(page: &mut Page, found: &Findings) {
    let outcome = &found.outcome;
    let [clean, corrupted] = outcome.baselines.means();
    page.section("Baselines", "The metric on the unpatched runs, mean over prompts.");
    let row = |name: &str, value: f64| vec![name.to_owned(), number(value)];
    let metric = format!("{} ({})", outcome.metric, units::of_metric(outcome.metric));
    page.table(&["run", &metric], vec![row("clean", clean), row("corrupted", corrupted)]);
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
    if let Some(bound) = &found.bound {
        page.text(&screening::bound_in_words(screened, bound, pairs));
    }
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
        // The name of the unit in full is longer than the axis.
        let unit = short_unit(&found.outcome);
        let axes = [format!("exact effect ({unit})"), format!("attribution ({unit})")];
        let axes = axes.each_ref().map(String::as_str);
        page.chart(charts::scatter(&agreement.kind.to_string(), &points, axes));
    }
}

/// Returns the first sentences of the section of a table: the meaning of its effects and their
/// scale.
fn lead(outcome: &Outcome, name: &str, arguments: &Arguments) -> String {
    let unit = match outcome.scale {
        Scale::Normalized => "Mean over prompts, as a share of the clean minus the corrupted metric.".to_owned(),
        Scale::Metric => {
            format!("Mean over prompts, as a change of the metric ({}).", units::of_metric(outcome.metric))
        }
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
            format!(
                "The direct contribution of each node to the logit difference, in {}. For the residual stream, the \
                 logit difference of the stream at that layer. Mean over prompts.",
                units::of_metric(outcome.metric)
            )
        }
        _ => unit,
    }
}

/// Adds a table of the largest effects of one kind of node, or of all nodes of a list.
fn top_nodes(page: &mut Page, outcome: &Outcome, effects: &Effects, certainty: &Certainty, pairs: &PromptPairs) {
    let is_list = !effects.nodes.is_empty() && effects.axis_names().len() == 2;
    let nonzero = effects.mean().iter().filter(|effect| **effect != 0.0).count();
    let rows = if is_list { effects.nodes.len() } else { nonzero.clamp(1, TOP) };
    let (header, rows) = top_table(outcome, effects, certainty, pairs, rows);
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
fn head_edges(page: &mut Page, found: &EdgeAttribution, outcome: &Outcome, pairs: &PromptPairs) {
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
    let meaning = Meaning::of(outcome);
    if noise::is_all_below(&sums.view(), meaning.floor) {
        page.text(&noise::all_below(meaning.floor));
        return;
    }
    let chosen = busiest(&sums, 22);
    let all = head_edges::heads(mean.shape()[0], mean.shape()[1]);
    let labels: Vec<String> = chosen.iter().map(|&i| all[i].clone()).collect();
    let reach = charts::color_limit(sums.outer_iter());
    for (input, name) in INPUTS.into_iter().enumerate() {
        let map = head_edges::between(&sums, input, &chosen);
        let labels = HeatMapLabels { rows: ("end", &labels), columns: ("start", &labels), reach };
        let title = format!("into the {name}");
        match noise::is_all_below(&map.view(), meaning.floor) {
            true => page.text(&format!("Without a map: {title}. {}", noise::all_below(meaning.floor))),
            false => page.chart(charts::effect_map(&title, &map.view(), labels, meaning, None)),
        }
    }
    page.table(&["edge", &format!("effect ({})", meaning.unit)], head_edges::largest(&mean, TOP));
}

/// Adds a map of the largest edges between layers, and a table of the largest edges.
fn all_edges(page: &mut Page, found: &EdgeEffects, outcome: &Outcome) {
    page.section(
        "edges",
        "Effect of each edge: the output of one component (the writer), taken from the other run in the input of one \
         later component (the reader) alone. A cell of the map shows the largest edge between two groups of components; \
         effects.safetensors and effects.csv have all edges.",
    );
    let mean = found.mean();
    let meaning = Meaning::of(outcome);
    if noise::is_all_below(&mean.view(), meaning.floor) {
        page.text(&noise::all_below(meaning.floor));
        return;
    }
    let map = edges::by_layer(&found.graph, &mean);
    let reach = charts::color_limit([map.effects.view()]);
    let labels = HeatMapLabels { rows: ("reader", &map.readers), columns: ("writer", &map.writers), reach };
    page.chart(charts::effect_map("Largest edge between layers", &map.effects.view(), labels, meaning, None));
    page.table(&["edge", &format!("effect ({})", meaning.unit)], edges::largest(found, TOP));
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
