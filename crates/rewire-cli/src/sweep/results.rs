//! The findings of a sweep as tables, notes and text.

use std::borrow::Cow;

use ndarray::{ArrayD, Axis};
use rewire_analysis::Reduce;
use rewire_analysis::attribution::Estimator;
use rewire_analysis::integrated::Completeness;
use rewire_analysis::node::By;
use rewire_analysis::patching::Screened;
use rewire_analysis::run::Scale;
use rewire_analysis::stats::Agreement;
use rewire_analysis::{Align, Effects, Method, Outcome};
use rewire_model::{BackwardRule, FinalNormGain};
use rewire_report::edge_agreement::EdgeAgreements;
use rewire_report::noise;
use rewire_report::numbers::number;
use rewire_report::units::{self, unit};
use rewire_tasks::PromptPairs;
use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::choices::AlignName;
use super::findings::Findings;
use super::{paths, shortened};
use crate::circuit::curve_rows;
use crate::output::text_table;
use rewire_report::head_edges::AXES as PATH_AXES;
use rewire_report::{
    Certainty, Columns, Quantity, Table, agreement, describe_baselines, describe_clusters, edge_agreement, names,
    screening,
};

/// Number of edges that are printed.
const EDGES: usize = 20;
/// Most marked positions that are printed.
const MARKS: usize = 5;

/// Returns the tables of `effects.safetensors`.
pub(super) fn tables(found: &Findings, pairs: &PromptPairs, arguments: &Arguments) -> Vec<Table> {
    let prompts = if arguments.per_prompt { Reduce::PerPrompt } else { Reduce::Mean };
    let mut tables = Vec::new();
    let written = written(&found.outcome);
    let quantity = match found.outcome.method {
        Method::Ablation => Quantity::MetricAfter,
        _ => Quantity::Effect,
    };
    for ((name, effects), certainty) in found.names.iter().zip(written.iter()).zip(&found.certainty) {
        let nodes = effects.nodes.iter().map(|node| names::of_listed(node, pairs)).collect();
        let table = Table { quantity, nodes, ..Table::new(name.clone(), effects, prompts, &found.outcome) };
        if arguments.intervals {
            let beside = certainty.tables(effects).into_iter().map(|(what, values)| Table {
                name: format!("{name}.{what}"),
                quantity: quantity_beside(what, quantity),
                values,
                prompts_by_position: None,
                ..table.clone()
            });
            let beside: Vec<Table> = beside.collect();
            tables.push(table);
            tables.extend(beside);
        } else {
            tables.push(table);
        }
    }
    for Completeness { kind, gap, .. } in &found.completeness {
        let axes = ["prompt", "layer", if kind.is_of_heads() { "head" } else { "neuron" }];
        let gap = match prompts {
            Reduce::PerPrompt => gap.clone(),
            Reduce::Mean => gap.mapv(f32::abs).mean_axis(Axis(0)).unwrap_or_default(),
        };
        let skipped = usize::from(prompts == Reduce::Mean);
        let axes = axes[skipped..skipped + gap.ndim()].iter().map(|a| (*a).to_owned()).collect();
        let table = Table::of(format!("{kind}.gap"), axes, gap, &found.outcome);
        tables.push(Table { quantity: Quantity::Gap, ..table });
    }
    if let Some(paths) = &found.paths {
        let (axes, values, prompts_by_position): (&[&str], ArrayD<f32>, _) = match prompts {
            Reduce::PerPrompt => (&PATH_AXES, paths.values.clone(), None),
            Reduce::Mean => (&PATH_AXES[1..], paths.mean().into_dyn(), Some(paths.prompts_by_position.clone())),
        };
        let axes = axes.iter().map(|a| (*a).to_owned()).collect();
        let table = Table::of("head_edges".to_owned(), axes, values, &found.outcome);
        tables.push(Table { prompts_by_position, ..table });
    }
    if let Some(edges) = &found.edges {
        tables.push(Table::of_edges("edges".to_owned(), edges, prompts));
    }
    if let Some(verified) = &found.verified_edges {
        tables.push(Table::of_edges("verified/edges".to_owned(), &verified.exact, prompts));
    }
    if let Some(chosen) = &found.chosen {
        let (axes, values): (&[&str], ArrayD<f32>) = match prompts {
            Reduce::PerPrompt => (&["prompt", "edge"], chosen.found.values.clone().into_dyn()),
            Reduce::Mean => (&["edge"], chosen.found.mean().into_dyn()),
        };
        let axes = axes.iter().map(|a| (*a).to_owned()).collect();
        let nodes = chosen.edges.iter().map(ToString::to_string).collect();
        tables.push(Table { nodes, ..Table::of("edges".to_owned(), axes, values, &found.outcome) });
    }
    tables.extend(found.circuits.iter().flat_map(curve_rows::tables));
    if let Some(screened) = &found.screened {
        for effects in &screened.exact.effects {
            tables.push(Table::new(format!("verified/{}", effects.kind), effects, prompts, &screened.exact));
        }
    }
    tables
}

/// Returns the tables of the numbers that were computed again, without uncertainties.
pub(super) fn recomputed(found: &Findings, arguments: &Arguments) -> Vec<Table> {
    let prompts = if arguments.per_prompt { Reduce::PerPrompt } else { Reduce::Mean };
    let written = written(&found.outcome);
    let of_nodes = found.names.iter().zip(written.iter());
    let of_nodes = of_nodes.map(|(name, effects)| Table::new(name.clone(), effects, prompts, &found.outcome));
    let of_edges = found.edges.iter().map(|edges| Table::of_edges("edges".to_owned(), edges, prompts));
    of_nodes.chain(of_edges).collect()
}

/// Returns the meaning of the numbers in a table that stands beside the table of `quantity`.
fn quantity_beside(what: &str, quantity: Quantity) -> Quantity {
    match what {
        "standard_error" => Quantity::StandardError,
        "family_wise_p" => Quantity::PValue,
        // The interval of the metric after ablation is one of the metric, not of a change.
        _ if quantity == Quantity::MetricAfter => Quantity::MetricAfter,
        _ => Quantity::IntervalEnd,
    }
}

/// Returns the values to write: the metric after ablation, or the effects of other methods.
fn written(outcome: &Outcome) -> Cow<'_, [Effects]> {
    match outcome.method {
        Method::Ablation => Cow::Owned(outcome.after()),
        _ => Cow::Borrowed(&outcome.effects),
    }
}

/// Returns the metric on the unpatched runs for `effects.json`: means, values of each prompt, their
/// unit, and on how many prompts the model is right.
pub(super) fn baselines(found: &Findings) -> Value {
    let mut baselines = describe_baselines(&found.outcome.baselines);
    baselines["unit"] = json!(units::of_metric(found.outcome.metric));
    if let Some(correct) = found.correct {
        correct.describe(&mut baselines);
    }
    baselines
}

/// Header of [`completeness_rows`].
pub(super) const COMPLETENESS: [&str; 5] = ["kind", "layer", "steps", "largest change of the metric", "largest gap"];

/// Returns a row for each kind and layer: the largest absolute change and gap over all prompts.
pub(super) fn completeness_rows(all: &[Completeness]) -> Vec<Vec<String>> {
    let row = |of: &Completeness, layer: usize| {
        let largest =
            |values: &ArrayD<f32>| values.index_axis(Axis(1), layer).iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        vec![
            of.kind.to_string(),
            layer.to_string(),
            of.steps[layer].to_string(),
            number(largest(&of.change)),
            format!("{:.1e}", largest(&of.gap)),
        ]
    };
    all.iter().flat_map(|of| (0..of.steps.len()).map(|layer| row(of, layer)).collect::<Vec<_>>()).collect()
}

/// Returns the notes on the tables, for effects.json.
pub(super) fn notes(found: &Findings, pairs: &PromptPairs, identity: &Value, arguments: &Arguments) -> Value {
    let mut notes = Map::new();
    let kinds = found.names.iter().zip(&found.outcome.effects).zip(&found.certainty);
    let kinds = kinds.map(|((name, effects), certainty)| {
        (name.clone(), certainty.describe(effects, |place| names::of_node(effects, place, pairs)))
    });
    let mut uncertainty = describe_clusters(&pairs.clusters(), arguments.seed);
    uncertainty["tables"] = Value::Object(kinds.collect());
    notes.insert("uncertainty".to_owned(), uncertainty);
    notes.insert("metric_position".to_owned(), json!(arguments.metric_position()));
    let of_method = method_notes(found, identity, arguments);
    notes.extend(of_method.into_iter().map(|(name, note)| (name.to_owned(), note)));
    if let Some(shortened) = &found.shortened {
        notes.insert("against_float32".to_owned(), shortened.describe());
    }
    if let Some(effects) = found.outcome.effects.first().filter(|effects| !effects.nodes.is_empty()) {
        notes.insert("nodes".to_owned(), effects.nodes.iter().map(|node| names::of_listed(node, pairs)).collect());
    }
    if arguments.align == AlignName::End {
        let names: Vec<String> = (0..pairs.width()).map(|position| Align::End.position_name(position)).collect();
        notes.insert("positions_from_end".to_owned(), json!(names));
    }
    if let Some(judged) = &found.circuits {
        notes.insert("circuits".to_owned(), curve_rows::describe(judged));
    }
    if let Some(paths) = &found.paths {
        notes.insert("norm".to_owned(), json!(paths.norm));
    }
    if let Some(verified) = &found.verified_edges {
        notes.insert("agreement_of_edges".to_owned(), EdgeAgreements::new(verified).describe());
    }
    if let Some(screened) = &found.screened {
        notes.insert("screening".to_owned(), screening_note(screened, found, pairs));
        if let Some(bound) = &found.bound {
            notes.insert("skipped_bound".to_owned(), screening::describe_bound(screened, bound, pairs));
        }
    }
    Value::Object(notes)
}

/// Returns notes on the tables of the method, by name.
fn method_notes(found: &Findings, identity: &Value, arguments: &Arguments) -> Vec<(&'static str, Value)> {
    match found.outcome.method {
        Method::IntegratedGradients => {
            let steps = found.completeness.iter().map(|c| (c.kind.to_string(), json!(c.steps)));
            let largest = |c: &Completeness| c.gap.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let gaps = found.completeness.iter().map(|c| (c.kind.to_string(), json!(largest(c))));
            vec![
                ("integral", identity["line"].clone()),
                ("mean_over", identity["mean over"].clone()),
                (
                    "gaps_are",
                    json!("with --per-prompt signed, per prompt; without it the mean absolute gap over prompts"),
                ),
                ("steps_by_layer", Value::Object(steps.collect())),
                ("largest_gap", Value::Object(gaps.collect())),
            ]
        }
        Method::Ablation => vec![
            ("replaced_by", identity["ablation"].clone()),
            ("mean_over", identity["mean over"].clone()),
            ("values_are", json!("the metric after ablation")),
        ],
        Method::AttributionPatching => {
            let mut notes =
                vec![("backward", json!(arguments.backward)), ("estimator", json!(found.estimator.to_string()))];
            if found.estimator.is_unsigned() {
                notes.push(("values_are", json!("mean absolute estimates without a sign (GradDrop)")));
            }
            notes
        }
        Method::PathPatching => {
            vec![("paths", identity["paths"].clone()), ("unreached_receivers", json!(found.unreached))]
        }
        Method::LogitAttribution => {
            let meaning = "direct contribution of each node to the logit difference, at the scales that the final \
                           norm and a norm after attention or MLP have on the clean run; for the residual stream, the \
                           logit difference of the stream at that layer";
            let gain = match arguments.final_norm_gain() {
                FinalNormGain::Applied => "applied",
                FinalNormGain::LeftOut => {
                    "left out, as in TransformerLens; with unprocessed weights the values do not sum to the logits"
                }
            };
            vec![("values_are", json!(meaning)), ("final_norm_gain", json!(gain))]
        }
        _ => Vec::new(),
    }
}

/// Returns notes on the nodes that were patched exactly and on the skipped nodes.
fn screening_note(screened: &Screened, found: &Findings, pairs: &PromptPairs) -> Value {
    let largest = screened.largest_skipped.as_ref();
    json!({
        "verified": screened.verified.len(),
        "skipped": screened.skipped,
        "largest_skipped_attribution": largest.map(|(_, value)| value),
        "largest_skipped_node": largest.map(|(place, _)| screening::name(screened, place, pairs)),
        "agreement": agreement::describe(&agreements(found)),
        "meaning_of_nan": "skipped node without an exact effect",
    })
}

/// Returns the header and rows of a table of the nodes of largest effect. If there are several
/// clusters of prompts, the table has standard errors and intervals.
pub(super) fn top_table(
    outcome: &Outcome,
    effects: &Effects,
    certainty: &Certainty,
    pairs: &PromptPairs,
    n: usize,
) -> (Vec<String>, Vec<Vec<String>>) {
    let nodes = names::largest(&effects.mean(), n);
    let after = (outcome.method == Method::Ablation)
        .then(|| outcome.after())
        .and_then(|all| all.into_iter().find(|e| e.kind == effects.kind).map(|e| e.mean()));
    // Resampling all nodes would take long; the table shows only these.
    let places: Vec<Vec<usize>> = nodes.iter().map(|(place, _)| place.clone()).collect();
    let Columns { header, rows } = certainty.columns(effects, &places);
    let row = |((place, value), sure): (&(Vec<usize>, f32), Vec<String>)| {
        let name = certainty.marked(names::of_node(effects, place, pairs), place);
        let after = after.iter().map(|after| number(after[place.as_slice()]));
        [name, number(*value)].into_iter().chain(sure).chain(after).collect()
    };
    let rows = nodes.iter().zip(rows).map(row).collect();
    let unit = short_unit(outcome);
    let after = after.iter().map(|_| format!("metric after ({unit})"));
    (["node".to_owned(), format!("effect ({unit})")].into_iter().chain(header).chain(after).collect(), rows)
}

/// Returns the unit of effects, short enough for the header of a column.
pub(super) fn short_unit(outcome: &Outcome) -> &'static str {
    match outcome.scale {
        Scale::Normalized => "share",
        Scale::Metric => unit(outcome.metric, outcome.scale),
    }
}

/// Returns the agreement of attribution with the exact effects of the verified nodes, for each
/// kind.
pub(super) fn agreements(found: &Findings) -> Vec<Agreement> {
    let compared = found.compared();
    let pairs = compared.iter().flat_map(|s| s.exact.effects.iter().zip(&s.attribution.effects));
    pairs.filter_map(|(exact, estimate)| Agreement::new(exact, estimate, agreement::TOP_K).ok()).collect()
}

/// Returns the text to print: baselines and the nodes of largest effect.
pub(super) fn summary(found: &Findings, pairs: &PromptPairs, arguments: &Arguments) -> String {
    let outcome = &found.outcome;
    let mut text = baselines_text(found);
    text += &paths::unreached_text(&found.unreached);
    text += &marked_text(pairs, arguments).map_or(String::new(), |marked| format!("{marked}\n"));
    for ((name, effects), certainty) in found.names.iter().zip(&outcome.effects).zip(&found.certainty) {
        text += &format!("{name} ({})\n", heading(outcome, found.estimator, arguments));
        text += &effects_text(outcome, effects, certainty, pairs);
    }
    if !found.completeness.is_empty() {
        text += "gap between the sum of attributions and the change of the metric\n";
        text += &text_table(&COMPLETENESS, &completeness_rows(&found.completeness));
    }
    if let Some(paths) = &found.paths {
        text += &format!("head_edges ({})\n", heading(outcome, found.estimator, arguments));
        let header = format!("effect ({})", short_unit(outcome));
        let mean = paths.mean();
        text += &only_rounding(outcome, &mean.clone().into_dyn())
            .unwrap_or_else(|| text_table(&["edge", &header], &rewire_report::head_edges::largest(&mean, 5)));
    }
    if let Some(edges) = &found.edges {
        let heading = heading(outcome, found.estimator, arguments);
        text += &format!("{} ({heading})\n", names::counted(edges.graph.n_edges(), "edge"));
        let header = format!("effect ({})", short_unit(outcome));
        text += &only_rounding(outcome, &edges.mean().into_dyn())
            .unwrap_or_else(|| text_table(&["edge", &header], &rewire_report::edges::largest(edges, EDGES)));
    }
    if let Some(verified) = &found.verified_edges {
        let agreements = EdgeAgreements::new(verified);
        text += &format!("{}\n", agreements.in_words());
        text += &text_table(&edge_agreement::HEADER, &agreements.rows());
    }
    if let Some(chosen) = &found.chosen {
        let title = names::counted(chosen.edges.len(), "edge");
        text += &format!("{title} ({})\n", heading(outcome, found.estimator, arguments));
        let header = format!("effect ({})", short_unit(outcome));
        text += &only_rounding(outcome, &chosen.found.mean().into_dyn())
            .unwrap_or_else(|| text_table(&["edge", &header], &chosen.rows()));
    }
    if let Some(judged) = &found.circuits {
        text += &format!("circuits of the best edges ({})\n", judged.sized.ranking);
        text += &text_table(&curve_rows::HEADER, &curve_rows::rows(judged));
    }
    if let Some(shortened) = &found.shortened {
        text += &format!("{}\n", shortened.heading(&arguments.numbers));
        text += &text_table(&shortened::HEADER, &shortened.rows());
    }
    if let Some(screened) = &found.compared() {
        text += &format!("{}\n", screening::in_words(screened, pairs));
        text += &text_table(&screening::HEADER, &screening::rows(screened, pairs, 10));
        if let Some(bound) = &found.bound {
            text += &format!("{}\n", screening::bound_in_words(screened, bound, pairs));
        }
        text += "attribution compared with exact effects, for the verified nodes (the nodes of largest attribution)\n";
        text += &text_table(&agreement::HEADER, &agreement::rows(&agreements(found)));
    }
    text
}

/// Returns the metric on the unpatched runs, and on how many prompts the model is right.
fn baselines_text(found: &Findings) -> String {
    let metric = found.outcome.metric;
    let [clean, corrupted] = found.outcome.baselines.means().map(number);
    let in_unit = match units::of_metric(metric) {
        unit if unit == metric => String::new(),
        unit => format!(" ({unit})"),
    };
    let mut text = format!("{metric}{in_unit}: clean {clean}, corrupted {corrupted}\n");
    if let Some(correct) = found.correct {
        text += &format!("{}\n", correct.sentence());
    }
    text
}

/// Returns the marked positions of the first prompts with their tokens, if nodes are at marked
/// positions.
pub(super) fn marked_text(pairs: &PromptPairs, arguments: &Arguments) -> Option<String> {
    let marks = pairs.marked_positions().filter(|_| arguments.by.division() == By::Marked)?;
    let place = |(pair, mark): (usize, &usize)| format!("{mark} ({:?})", pairs.labels(pair)[*mark]);
    let places: Vec<String> = marks.iter().enumerate().take(MARKS).map(place).collect();
    let more = if marks.len() > MARKS { ", .." } else { "" };
    Some(format!("marked positions, counted from 0: {}{more}", places.join(", ")))
}

/// Returns the method, the direction and the unit of effects.
fn heading(outcome: &Outcome, estimator: Estimator, arguments: &Arguments) -> String {
    let unit = unit(outcome.metric, outcome.scale);
    let method = match outcome.method {
        Method::ActivationPatching | Method::Ablation | Method::PathPatching => "exact".to_owned(),
        Method::AttributionPatching => format!("estimated{}{}", by_estimator(estimator), by_rule(arguments)),
        Method::IntegratedGradients => "integrated gradients".to_owned(),
        Method::LogitAttribution => return format!("direct, on the clean run; {unit}"),
    };
    format!("{method}, {}; {unit}", outcome.direction)
}

/// Returns the backward rule of the estimates, unless it is the gradient.
pub(super) fn by_rule(arguments: &Arguments) -> String {
    match arguments.backward {
        BackwardRule::Gradient => String::new(),
        rule => format!(" by the backward rule {rule}"),
    }
}

/// Returns which estimate attribution patching made, unless it is the plain one.
pub(super) fn by_estimator(estimator: Estimator) -> String {
    match estimator == Estimator::default() {
        true => String::new(),
        false => format!(" by {estimator}"),
    }
}

/// Returns a table of the nodes of largest effect, or one line if all effects are rounding.
fn effects_text(outcome: &Outcome, effects: &Effects, certainty: &Certainty, pairs: &PromptPairs) -> String {
    if let Some(rounding) = only_rounding(outcome, &effects.mean()) {
        return rounding;
    }
    // Every single node was asked for.
    let (header, rows) = top_table(outcome, effects, certainty, pairs, effects.nodes.len().max(5));
    let table = text_table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
    format!("{table}  {}\n", certainty.in_words())
}

/// Returns one line in place of a table if all mean effects are 0 or rounding.
fn only_rounding(outcome: &Outcome, mean: &ArrayD<f32>) -> Option<String> {
    let is_zero = mean.iter().all(|effect| *effect == 0.0);
    let floor = if is_zero { 0.0 } else { noise::floor(outcome) };
    noise::is_all_below(&mean.view(), floor).then(|| format!("  {}\n", noise::all_below(floor)))
}
