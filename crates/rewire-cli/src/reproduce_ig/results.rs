//! The results as tables and notes, and the rows that the summary and the report print.

use ndarray::Array2;
use rewire_analysis::Reduce;
use rewire_analysis::integrated::{Curves, Integrated};
use rewire_analysis::patching::AnswerAccuracy;
use rewire_analysis::run::Scale;
use rewire_analysis::stats::{Comparison, Proportion};
use rewire_hooks::Head;
use rewire_report::{Quantity, Table};
use rewire_studies::integrated_gradients::{
    Ablations as Study, Aside, Averaged, BASELINES, Contrasted, FIGURES, Found, INTERVENTIONS, KINDS, Lines, Mean,
    REFERENCE,
};
use serde_json::{Value, json};

use super::arguments::Arguments;

/// Number of nodes in a table.
pub(super) const TOP_NODES: usize = 10;

pub(super) fn tables(found: &Found) -> Vec<Table> {
    let compared = &found.compared;
    let mut tables = Vec::new();
    for effects in &compared.exact.effects {
        let name = format!("activation-patching/{}", effects.kind);
        tables.push(Table::new(name, effects, Reduce::PerPrompt, &compared.exact));
    }
    for (baseline, lines) in BASELINES.iter().zip(&compared.lines) {
        let Integrated { outcome, completeness } = &lines.integrated;
        for (effects, complete) in outcome.effects.iter().zip(completeness) {
            let name = format!("integrated-gradients/{baseline}/{}", effects.kind);
            let axes = ["prompt", "layer"].map(str::to_owned).to_vec();
            let gap = Table::of(format!("{name}.gap"), axes.clone(), complete.gap.clone(), outcome);
            tables.push(Table { quantity: Quantity::Gap, ..gap });
            tables.push(Table::of(format!("{name}.change"), axes, complete.change.clone(), outcome));
            tables.push(Table::new(name, effects, Reduce::PerPrompt, outcome));
        }
        for effects in &lines.literal_means {
            let name = format!("literal-first-node/{baseline}/{}", effects.kind);
            tables.push(Table { method: None, ..Table::new(name, effects, Reduce::PerPrompt, &lines.literal.outcome) });
        }
    }
    if let Some(averaged) = &found.averaged {
        tables.extend(KINDS.iter().zip(&averaged.correlations).map(|((_, nodes), found)| Table {
            name: format!("generated-pairs/pearson/{nodes}"),
            axes: ["pair", "figure"].map(str::to_owned).to_vec(),
            values: found.values.clone().into_dyn(),
            method: None,
            direction: None,
            scale: Some(Scale::Metric),
            ..Table::default()
        }));
    }
    tables.extend([curves("curves/inside", &found.curves.inside), curves("curves/wide", &found.curves.wide)]);
    tables
}

/// Returns the table of the curves on the single prompt, `[curve, place]`.
fn curves(name: &str, curves: &Curves) -> Table {
    let n = curves.values.shape()[1];
    let values = Array2::from_shape_fn((n, curves.places.len()), |(node, place)| curves.values[[0, node, place]]);
    Table {
        name: name.to_owned(),
        axes: ["curve", "place"].map(str::to_owned).to_vec(),
        values: values.into_dyn(),
        method: None,
        direction: None,
        scale: Some(Scale::Metric),
        ..Table::default()
    }
}

pub(super) fn notes(found: &Found, arguments: &Arguments) -> Value {
    let compared = &found.compared;
    let comparison = |c: &Comparison| {
        let limits = c.difference.limits();
        json!({ "pearson": c.pearson, "regression": c.regression, "top_k": c.top_k, "jaccard": c.jaccard,
            "mean_difference": c.difference.bias, "sd_of_differences": c.difference.sd, "limits": limits })
    };
    let of_baseline = |(baseline, lines): (&&str, &Lines)| {
        let of_kind = |(i, (_, name)): (usize, &(_, &str))| {
            let value = json!({
                "integrated_gradients": comparison(&lines.comparisons[i]),
                "literal_first_node": comparison(&lines.literal_comparisons[i]),
                "steps_by_layer": lines.integrated.completeness[i].steps,
            });
            ((*name).to_owned(), value)
        };
        let kinds = KINDS.iter().enumerate().map(of_kind).collect::<serde_json::Map<_, _>>();
        ((*baseline).to_owned(), Value::Object(kinds))
    };
    let comparisons: serde_json::Map<_, _> = BASELINES.iter().zip(&compared.lines).map(of_baseline).collect();
    let heads = |heads: &[Head]| heads.iter().map(Head::to_string).collect::<Vec<_>>();
    let study = found.study.as_ref().map(|study| describe(study, found));
    json!({
        "rule": arguments.rule, "steps": arguments.steps, "tolerance": arguments.tolerance,
        "panels": arguments.panels,
        "comparisons": comparisons,
        "generated_pairs": found.averaged.as_ref().map(describe_averaged),
        "literal_sd": compared.literal_sd(),
        "contrastive": found.contrasts.iter().map(describe_contrast).collect::<Vec<_>>(),
        "outliers": heads(&compared.outliers()),
        "literal_outliers": heads(&compared.literal_outliers()),
        "curves": heads(&found.curves.heads),
        "places_inside": found.curves.inside.places, "places_wide": found.curves.wide.places,
        "ablation": study,
    })
}

/// Describes the correlations with patching over generated pairs, by nodes and figure.
fn describe_averaged(averaged: &Averaged) -> Value {
    let of_kind = |(kind, (_, nodes)): (usize, &(_, &str))| {
        let mean = |(figure, mean): (&&str, Mean)| {
            let ends = if mean.is_interval { "bootstrap_95" } else { "range" };
            let value = json!({ "mean": mean.mean, ends: mean.ends });
            (figure.replace(' ', "_"), value)
        };
        let means = averaged.means(kind).map(|means| FIGURES.iter().zip(means).map(mean).collect());
        let value = json!({
            "pairs": averaged.correlations[kind].values.nrows(),
            "pearson": means.map(Value::Object),
            "conclusion": averaged.conclusion(kind),
        });
        ((*nodes).to_owned(), value)
    };
    let kinds: serde_json::Map<_, _> = KINDS.iter().enumerate().map(of_kind).collect();
    json!({ "n": averaged.n, "seed": averaged.seed, "corruption": "s2-io", "baseline": BASELINES[1], "nodes": kinds })
}

fn describe_contrast(contrast: &Contrasted) -> Value {
    json!({
        "pair": contrast.name, "head": contrast.head.to_string(),
        "logit_differences": contrast.logit_differences, "patched": contrast.patched,
        "integrated_gradients": contrast.integrated, "gap": contrast.gap,
        "literal_first_node_backward": contrast.literal, "literal_gap": contrast.literal_gap,
    })
}

fn describe(study: &Study, found: &Found) -> Value {
    let share = |p: Proportion| json!({ "right": p.successes, "of": p.n, "share": p.share(), "wilson_95": p.wilson() });
    let accuracy = |a: &AnswerAccuracy| {
        json!({ "said": share(a.said), "first": share(a.first), "above_wrong": share(a.above_wrong),
            "mean_rank": a.mean_rank, "logit_difference": a.logit_difference })
    };
    let rows = |names: Vec<String>, rows: &[Vec<AnswerAccuracy>]| -> Value {
        let of = |(by, row): (&&str, &Vec<AnswerAccuracy>)| {
            let row = names.iter().cloned().zip(row.iter().map(accuracy)).collect::<serde_json::Map<_, _>>();
            ((*by).to_owned(), Value::Object(row))
        };
        Value::Object(INTERVENTIONS.iter().zip(rows).map(of).collect())
    };
    let correlations = study.correlations(&found.compared).into_iter().map(|c| {
        let of = INTERVENTIONS.iter().map(|i| (*i).to_owned()).zip(c.with_change.iter().map(|r| json!(r)));
        (c.scores.to_owned(), Value::Object(of.collect()))
    });
    json!({
        "whole": accuracy(&study.whole),
        "means_nothing": study.means_nothing(),
        "heads": rows(study.names(), &study.alone),
        "sets": rows(study.sets.iter().map(|(name, _)| name.clone()).collect(), &study.together),
        "correlation_with_change_of_accuracy": correlations.collect::<serde_json::Map<_, _>>(),
        "mean_over_prompts": REFERENCE,
    })
}

pub(super) const COMPARISON: [&str; 8] =
    ["baseline", "nodes", "attribution", "Pearson", "slope", "Jaccard", "mean difference", "1.96 SD"];

/// Returns one row per baseline, kind and method: integrated gradients, then the notebook's figure.
pub(super) fn comparison_rows(found: &Found) -> Vec<Vec<String>> {
    let number = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.4}"));
    let mut rows = Vec::new();
    for (baseline, lines) in BASELINES.iter().zip(&found.compared.lines) {
        for (kind, (_, name)) in KINDS.iter().enumerate() {
            for (figure, all) in [("integrated", &lines.comparisons), ("notebook's", &lines.literal_comparisons)] {
                let of = &all[kind];
                rows.push(vec![
                    (*baseline).to_owned(),
                    (*name).to_owned(),
                    figure.to_owned(),
                    number(of.pearson),
                    of.regression.map_or("-".to_owned(), |[slope, _]| format!("{slope:.3}")),
                    format!("{:.3} (of {})", of.jaccard, of.top_k),
                    format!("{:.4}", of.difference.bias),
                    format!("{:.4}", 1.96 * of.difference.sd),
                ]);
            }
        }
    }
    rows
}

pub(super) const AVERAGED: [&str; 5] = ["nodes", "pairs", "one gradient", "integral", "integral minus one gradient"];

/// Returns one row per kind: means over the generated pairs.
pub(super) fn averaged_rows(averaged: &Averaged) -> Vec<Vec<String>> {
    let row = |(kind, (_, nodes)): (usize, &(_, &str))| {
        let figures = averaged.means(kind).map_or([const { String::new() }; 3], |means| means.map(|mean| mean.text()));
        let pairs = averaged.correlations[kind].values.nrows().to_string();
        [(*nodes).to_owned(), pairs].into_iter().chain(figures).collect()
    };
    KINDS.iter().enumerate().map(row).collect()
}

pub(super) const ASIDES: [&str; 3] = ["figure without a verdict", "printed", "ours"];

/// Returns one row per figure.
pub(super) fn aside_rows(asides: &[Aside]) -> Vec<Vec<String>> {
    asides.iter().map(|aside| vec![aside.what.clone(), aside.printed.clone(), aside.ours.clone()]).collect()
}

/// Formats a share with its 95% Wilson interval: `0.7864 (0.760 to 0.811)`.
pub(super) fn with_interval(p: Proportion) -> String {
    let [low, high] = p.wilson();
    format!("{:.4} ({low:.3} to {high:.3})", p.share())
}

pub(super) const ACCURACY: [&str; 5] = [
    "ablated",
    "replaced by",
    "says the answer (share, 95% interval)",
    "answer ranks first (share)",
    "logit difference (logits)",
];

/// Returns one row per ablation.
pub(super) fn accuracy_rows(study: &Study) -> Vec<Vec<String>> {
    let row = |name: &str, by: &str, a: &AnswerAccuracy| {
        vec![
            name.to_owned(),
            by.to_owned(),
            with_interval(a.said),
            format!("{:.4}", a.first.share()),
            format!("{:.3}", a.logit_difference),
        ]
    };
    let mut rows = vec![row("nothing", "", &study.whole)];
    let sets: Vec<String> = study.sets.iter().map(|(name, _)| name.clone()).collect();
    for (names, of_all) in [(study.names(), &study.alone), (sets, &study.together)] {
        for (i, name) in names.iter().enumerate() {
            rows.extend(INTERVENTIONS.iter().zip(of_all).map(|(by, of)| row(name, by, &of[i])));
        }
    }
    rows
}
