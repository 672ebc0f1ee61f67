//! The reproduction's report, in the demo's order.

use ndarray::{Array2, Axis, Ix2};
use rewire_analysis::Outcome;
use rewire_report::charts::{self, HeatMapLabels};
use rewire_report::{Check, Page};

use super::{Arguments, DIRECTIONS, Findings, HeadEffect, TOP, correlation};
use crate::model::Source;
use crate::output::{head_name, numbered, token_labels};

/// Heads whose attention is shown.
const ATTENTION_HEADS: usize = 8;

pub(super) fn page(source: &Source, findings: &[Findings], checks: &[Check], arguments: &Arguments) -> Page {
    let config = &source.config;
    let subtitle = format!(
        "{}: {} layers, {} heads · {} · {} weights",
        source.name,
        config.n_layers,
        config.n_heads,
        arguments.model.device.resolve(),
        if source.is_processed() { "processed" } else { "unprocessed" },
    );
    let mut page = Page::new("Which heads do indirect object identification", &subtitle);
    task(&mut page, findings, checks, arguments);
    let demo = &findings[0];
    attention(&mut page, demo);
    positions(&mut page, demo);
    for found in findings {
        heads(&mut page, source, found);
    }
    reading(&mut page);
    page
}

fn task(page: &mut Page, findings: &[Findings], checks: &[Check], arguments: &Arguments) {
    page.section(
        "The task",
        "A clean prompt names two people and repeats one, the subject; the model should say the other, the indirect object. \
         In the corrupted prompt the repeated name is changed. The metric is the logit of the right name less that of the \
         wrong one, at the last token.",
    );
    let row = |found: &Findings| {
        let [clean, corrupted] = found.baselines();
        let made = match found.set {
            "demo" => "the demo's".to_owned(),
            _ => format!("generated, seed {}, corrupted by {}", arguments.seed, arguments.corruption),
        };
        vec![made, found.pairs.len().to_string(), format!("{clean:.4}"), format!("{corrupted:.4}")]
    };
    let rows = findings.iter().map(row).collect();
    page.table(&["prompts", "number", "clean logit difference", "corrupted"], rows);
    for found in findings {
        let ranked = found.heads(0);
        let top = ranked.iter().take(5).map(|h| format!("{} ({:+.2})", head_name(h.layer, h.head), h.exact));
        let top = top.collect::<Vec<_>>().join(", ");
        page.text(&format!("The heads that bring most of the behaviour back, on the {} prompts: {top}.", found.set));
    }
    let text = |tokens: &[String]| tokens.concat();
    page.text(&format!("The demo's first prompt: {}", text(findings[0].pairs.labels(0))));
    if !checks.is_empty() {
        page.text(
            "This model has the shape of the one that the demo used; the figures that the demo prints, and ours:",
        );
        page.checks(checks);
    }
}

/// The demo's first analysis: attention attribution on the clean run.
fn attention(page: &mut Page, demo: &Findings) {
    let Some(attribution) = &demo.attention else { return };
    page.section(
        "Attention attribution",
        "Pattern times the gradient of the metric at the pattern, on the clean run: to first order, what would be lost if \
         that cell of the attention pattern were 0. Rows attend, columns are attended to; the heads with the largest cells.",
    );
    let tokens = token_labels(demo.pairs.labels(0));
    let sum = attribution.sum_axis(Axis(0));
    let first = attribution.index_axis(Axis(0), 0).to_owned();
    let sets = [
        ("first prompt", "on the first prompt", first),
        ("sum over prompts", "summed over all eight prompts, over the first one's tokens", sum),
    ];
    for (title, what, cells) in sets {
        page.text(&format!("The {ATTENTION_HEADS} heads with the largest cell, {what}."));
        let (layers, heads) = (cells.shape()[0], cells.shape()[1]);
        let mut ranked: Vec<(usize, usize, f32, Array2<f32>)> = (0..layers)
            .flat_map(|l| (0..heads).map(move |h| (l, h)))
            .map(|(l, h)| {
                let map = cells.index_axis(Axis(0), l).index_axis(Axis(0), h).to_owned();
                let largest = map.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                (l, h, largest, map)
            })
            .collect();
        ranked.sort_by(|a, b| b.2.total_cmp(&a.2));
        let reach = ranked.first().map_or(f32::MIN_POSITIVE, |(_, _, largest, _)| *largest);
        for (layer, head, _, map) in ranked.into_iter().take(ATTENTION_HEADS) {
            let title = format!("{}: {title}", head_name(layer, head));
            let labels = HeatMapLabels { rows: ("destination", &tokens), columns: ("source", &tokens), reach };
            page.chart(charts::heat_map(&title, &map.view(), labels));
        }
    }
}

/// Residual stream and layer outputs by position, exact beside attribution.
fn positions(page: &mut Page, demo: &Findings) {
    let tokens = token_labels(demo.pairs.labels(0));
    let layers = numbered("L", demo.outcomes[0][0].effects[0].values.shape()[1]);
    for (index, title) in
        [(1, "Residual stream by position"), (2, "Attention outputs by position"), (3, "MLP outputs by position")]
    {
        page.section(
            title,
            "Share of the behaviour that comes back (denoising) when the corrupted run takes this activation from the clean \
             one; over the first prompt's tokens, mean of the eight.",
        );
        let component = demo.outcomes[0][0].effects[index].kind.component.to_string();
        let labels = [("layer", layers.as_slice()), ("position", tokens.as_slice())];
        exact_and_attribution(page, &component, &demo.outcomes[0], index, labels);
    }
}

/// Head outputs: exact, by attribution, and one against the other.
fn heads(page: &mut Page, source: &Source, found: &Findings) {
    let (layers, heads) = (numbered("L", source.config.n_layers), numbered("H", source.config.n_heads));
    let set = match found.set {
        "demo" => "the demo's prompts".to_owned(),
        _ => format!("{} generated prompts", found.pairs.len()),
    };
    for (index, direction) in DIRECTIONS.into_iter().enumerate() {
        page.section(
            &format!("Heads on {set}, {direction}"),
            match index {
                0 => "The corrupted run takes one head's output, at all positions, from the clean run: 0 changes nothing, 1 \
                      brings all of the behaviour back.",
                _ => "The clean run takes one head's output, at all positions, from the corrupted run: 0 changes nothing, -1 \
                      takes all of the behaviour away.",
            },
        );
        let labels = [("layer", layers.as_slice()), ("head", heads.as_slice())];
        exact_and_attribution(page, "Head outputs", &found.outcomes[index], 0, labels);
        let ranked = found.heads(index);
        let point = |h: &HeadEffect| (h.exact, h.attribution, head_name(h.layer, h.head));
        let points: Vec<_> = ranked.iter().map(point).collect();
        let r = correlation(&ranked).map_or("none".to_owned(), |r| format!("{r:.4}"));
        let title = format!("Attribution against exact effect (Pearson {r})");
        page.chart(charts::scatter(&title, &points, ["exact effect (activation patching)", "attribution"]));
        let row = |h: &HeadEffect| {
            vec![
                head_name(h.layer, h.head),
                format!("{:.4}", h.exact),
                format!("{:.4}", h.standard_error),
                format!("{:.4}", h.attribution),
                format!("{:+.4}", h.attribution - h.exact),
            ]
        };
        let rows = ranked.iter().take(TOP).map(row).collect();
        page.table(&["head", "exact effect", "standard error", "attribution", "error of attribution"], rows);
    }
}

fn reading(page: &mut Page) {
    page.section("How to read this", "");
    page.text(
        "Exact effects are activation patching: the model is run again for each node, with nothing approximated. Attribution \
         is (activation of the other run - own activation) times the gradient of the metric, summed: one backward pass for \
         all nodes, right where the network is linear between the two runs. Standard errors are over prompts. Every number \
         is in effects.safetensors and effects.csv beside this file, per prompt; effects.json says how they were made.",
    );
}

/// Two maps on one colour scale: the exact effects of the outcomes' `index`th kind, and their attribution.
fn exact_and_attribution(
    page: &mut Page,
    title: &str,
    outcomes: &[Outcome; 2],
    index: usize,
    [rows, columns]: [(&str, &[String]); 2],
) {
    let maps: Vec<_> = outcomes.iter().filter_map(|outcome| mean_map(outcome, index)).collect();
    let reach = charts::reach(maps.iter().map(|map| map.view()));
    for (map, how) in maps.iter().zip(["exact", "attribution"]) {
        let labels = HeatMapLabels { rows, columns, reach };
        page.chart(charts::heat_map(&format!("{title} ({how})"), &map.view(), labels));
    }
}

/// The mean over prompts of an outcome's `index`th kind, if it is a map of layers.
fn mean_map(outcome: &Outcome, index: usize) -> Option<Array2<f32>> {
    outcome.effects.get(index)?.mean().into_dimensionality::<Ix2>().ok()
}
