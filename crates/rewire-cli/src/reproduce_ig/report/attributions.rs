//! Attributions to both baselines, activation patching, and one against the other.

use ndarray::{Array2, Ix2};
use rewire_analysis::Effects;
use rewire_analysis::integrated::Quadrature;
use rewire_analysis::stats::Comparison;
use rewire_report::Page;
use rewire_report::charts::{self, Chart, HeatMapLabels, Point, StraightLine};

use crate::reproduce_ig::results::TOP_NODES;
use rewire_report::names::{head_name, numbered};
use rewire_studies::integrated_gradients::{BASELINES, Compared, Found, KINDS, Lines, TOP, flat, shares};

/// Points of a scatter above which nothing more is to be seen: the largest are drawn.
const MOST_POINTS: usize = 3000;

/// Neurons above which a map is wider than the page.
const WIDE: usize = 880;

pub(super) fn sections(page: &mut Page, found: &Found) {
    let compared = &found.compared;
    integrated(page, compared, 0);
    page.section(
        "Activation patching",
        "The clean run takes one neuron or head, at all positions, from the corrupted run: change of the logit difference, as a share \
         of clean less corrupted. -1 takes all of the behavior away.",
    );
    for (kind, (_, name)) in KINDS.iter().enumerate() {
        page.row(vec![map(&format!("Activation patching, {name}"), &compared.exact.effects[kind])]);
    }
    analysis(page, compared, 0);
    integrated(page, compared, 1);
    analysis(page, compared, 1);
    scaled(page, compared);
    slip(page, compared);
}

/// Attributions to one baseline: what they are, and what the notebook's code gives.
fn integrated(page: &mut Page, compared: &Compared, baseline: usize) {
    let name = BASELINES[baseline];
    let lead = match baseline {
        0 => {
            "The line goes from the clean activation to zero; of neurons, to what they are where the MLP reads zeros. In logits: the \
             attributions of a layer sum to what moving all of it changes."
        }
        _ => "The line goes from the clean activation to the corrupted one. In logits.",
    };
    page.section(&format!("Integrated gradients, {name} baseline"), lead);
    if compared.units(0) > WIDE {
        page.text("A neuron is one pixel wide: scroll to the right for the others, and for the scale.");
    }
    let Lines { integrated, literal_means, .. } = &compared.lines[baseline];
    for (kind, (_, nodes)) in KINDS.iter().enumerate() {
        let title = format!("Integrated gradients, {nodes}, {name} baseline");
        page.row(vec![map(&title, &integrated.outcome.effects[kind])]);
        let title = format!("The notebook's figure, {nodes}, {name} baseline (means)");
        page.row(vec![map(&title, &literal_means[kind])]);
    }
}

/// The mean effects of a kind.
fn map(title: &str, effects: &Effects) -> Chart {
    let values: Array2<f32> = effects.mean().into_dimensionality::<Ix2>().unwrap_or_default();
    let reach = charts::color_limit([values.view()]);
    grid_map(title, &values, usize::from(effects.kind.is_of_heads()), reach)
}

/// A map of `[layer, unit]`, of neurons or of heads.
fn grid_map(title: &str, values: &Array2<f32>, kind: usize, reach: f32) -> Chart {
    let unit = if kind == 1 { ("head", "H") } else { ("neuron", "N") };
    let (rows, columns) = (numbered("L", values.nrows()), numbered(unit.1, values.ncols()));
    let labels = HeatMapLabels { rows: ("layer", &rows), columns: (unit.0, &columns), reach };
    charts::heat_map(title, &values.view(), labels)
}

/// A node's name.
fn node_name(compared: &Compared, kind: usize, flat: usize) -> String {
    let (layer, unit) = compared.place(kind, flat);
    if kind == 1 { head_name(layer, unit) } else { format!("L{layer} N{unit}") }
}

/// Attributions of one baseline against patching.
fn analysis(page: &mut Page, compared: &Compared, baseline: usize) {
    let name = BASELINES[baseline];
    page.section(
        &format!("Comparison, {name} baseline"),
        "Each node's attribution against its exact effect, both as shares of clean less corrupted (the notebook's figure in its own unit, \
         a mean over positions and dimensions), with the least-squares line; then the mean-difference view: each method's \
         scores scaled by their largest size, patching less attribution over their mean, with the mean difference and the limits of \
         agreement (1.96 standard deviations). True attributions first, the notebook's figure beside them.",
    );
    let lines = &compared.lines[baseline];
    for (kind, (_, nodes)) in KINDS.iter().enumerate() {
        let exact = flat(&compared.exact.effects[kind]);
        let both = [
            (
                "integrated gradients",
                shares(&lines.integrated.outcome.effects[kind], &compared.logit_differences()),
                &lines.comparisons[kind],
            ),
            ("the notebook's figure", flat(&lines.literal_means[kind]), &lines.literal_comparisons[kind]),
        ];
        let regression = |(what, scores, comparison): &(&str, Vec<f32>, &Comparison)| {
            let r = comparison.pearson.map_or("none".to_owned(), |r| format!("{r:.4}"));
            let fit = least_squares(scores, &exact);
            let points = points(compared, kind, scores, &exact);
            let title = format!("{nodes}: {what} (Pearson {r})");
            charts::scatter_with(&title, &points, [what, "activation patching"], &fit)
        };
        page.row(both.iter().map(regression).collect());
        let difference = |(what, _, comparison): &(&str, Vec<f32>, &Comparison)| {
            let d = &comparison.difference;
            let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
            let points = points(compared, kind, &single(&d.means), &single(&d.differences));
            let [low, high] = d.limits();
            let level = |name, intercept, color| StraightLine { name, slope: 0.0, intercept, color };
            let levels = [
                level("mean difference", d.bias, "#555555"),
                level("+1.96 SD", high, "#c51b7d"),
                level("-1.96 SD", low, "#2166ac"),
            ];
            let title = format!("{nodes}: patching less {what}");
            charts::scatter_with(&title, &points, ["mean of both, scaled", "difference, scaled"], &levels)
        };
        page.row(both.iter().map(difference).collect());
        if exact.len() > MOST_POINTS {
            page.text(&format!(
                "Drawn are the {MOST_POINTS} of {} {nodes} that are furthest out; every figure is of all of them.",
                exact.len()
            ));
        }
    }
    differences(page, compared, lines);
    shared(page, compared, baseline);
}

pub(super) fn least_squares<'a>(x: &[f32], y: &[f32]) -> Vec<StraightLine<'a>> {
    let fit = rewire_analysis::stats::regression(x.iter().copied().zip(y.iter().copied()));
    let line =
        |[slope, intercept]: [f64; 2]| StraightLine { name: "least squares", slope, intercept, color: "#555555" };
    fit.map(line).into_iter().collect()
}

/// The largest size.
fn largest(scores: &[f32]) -> f32 {
    scores.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()))
}

/// The nodes that are furthest out along either axis.
fn points(compared: &Compared, kind: usize, x: &[f32], y: &[f32]) -> Vec<Point> {
    let (unit_x, unit_y) = (largest(x), largest(y));
    let far: Vec<f32> = x.iter().zip(y).map(|(x, y)| (x / unit_x).abs().max((y / unit_y).abs())).collect();
    let point =
        |i: usize| Point { x: x[i], y: y[i], layer: compared.place(kind, i).0, name: node_name(compared, kind, i) };
    rewire_analysis::stats::top_by_size(&far, MOST_POINTS).into_iter().map(point).collect()
}

/// Differences of scores, signed and of their sizes, of neurons and of heads.
fn differences(page: &mut Page, compared: &Compared, lines: &Lines) {
    for (kind, (_, nodes)) in KINDS.iter().enumerate() {
        let outcomes = [&compared.exact, &lines.integrated.outcome, &lines.literal.outcome];
        let [exact, integrated, literal] = outcomes.map(|outcome| {
            let scores = flat(&outcome.effects[kind]);
            let unit = largest(&scores);
            scores.iter().map(|v| v / unit).collect::<Vec<f32>>()
        });
        let units = compared.units(kind);
        let grid = |of: &dyn Fn(usize) -> f32| {
            Array2::from_shape_fn((exact.len() / units, units), |(layer, unit)| of(layer * units + unit))
        };
        for (what, found) in [("IG", integrated), ("notebook's figure", literal)] {
            let maps = [
                (format!("{what} less patching, {nodes}"), grid(&|i| found[i] - exact[i])),
                (format!("size of {what} less size of patching, {nodes}"), grid(&|i| found[i].abs() - exact[i].abs())),
            ];
            let reach = charts::color_limit(maps.iter().map(|(_, map)| map.view()));
            page.row(maps.iter().map(|(title, map)| grid_map(title, map, kind, reach)).collect());
        }
    }
    page.text(
        "Each method's scores scaled by the largest of all layers. (The notebook's zero-baseline maps scale each column, that is each \
         head number across layers, on its own, which makes heads of one map incomparable.)",
    );
    let outliers = lines.comparisons[1].difference.outliers();
    let names = |of: &[usize]| of.iter().map(|&i| node_name(compared, 1, i)).collect::<Vec<_>>().join(", ");
    page.text(&match outliers.as_slice() {
        [] => "No head is outside the limits of agreement.".to_owned(),
        some => format!("Heads outside the limits of agreement: {}.", names(some)),
    });
    let neurons = lines.comparisons[0].difference.outliers().len();
    page.text(&format!("Neurons outside theirs: {neurons} of {}.", lines.comparisons[0].difference.means.len()));
}

/// The nodes of largest score by either method.
fn shared(page: &mut Page, compared: &Compared, baseline: usize) {
    let lines = &compared.lines[baseline];
    let [clean, corrupted] = compared.logit_differences();
    let mut rows = Vec::new();
    for (kind, (_, nodes)) in KINDS.iter().enumerate() {
        let exact = flat(&compared.exact.effects[kind]);
        let found = flat(&lines.integrated.outcome.effects[kind]);
        let [by_exact, by_found] = [&exact, &found].map(|of| rewire_analysis::stats::top_by_size(of, TOP));
        for &i in by_exact.iter().take(TOP_NODES) {
            let rank = by_found.iter().position(|&j| j == i).map_or(format!("after {TOP}"), |r| (r + 1).to_string());
            rows.push(vec![
                node_name(compared, kind, i),
                (*nodes).to_owned(),
                format!("{:.4}", exact[i]),
                format!("{:.4}", f64::from(found[i]) / (clean - corrupted)),
                rank,
            ]);
        }
    }
    page.text("The nodes of largest exact effect; attributions in the same unit, as shares of clean less corrupted:");
    page.table(&["node", "kind", "patching", "integrated gradients", "rank by IG"], rows);
}

/// The notebook's figure of heads, as it scales it, beside patching on one color scale.
fn scaled(page: &mut Page, compared: &Compared) {
    page.section(
        "The notebook's figure times 1e5",
        "Heads, corrupted baseline: the notebook's figure times 1e5 and activation patching on one color scale, and one less the other \
         on another. The factor was chosen in the notebook so that both look alike there; it has no meaning.",
    );
    let grid = |of: &dyn Fn((usize, usize)) -> f32| {
        let shape = compared.exact.effects[1].values.shape();
        Array2::from_shape_fn((shape[1], shape[2]), of)
    };
    let figure = grid(&|place| compared.scaled_literal_of(place.into()));
    let exact = grid(&|place| compared.exact_of(place.into()));
    let rows = [
        [("the notebook's figure times 1e5", figure.clone()), ("activation patching", exact.clone())],
        [
            ("figure times 1e5 less patching", &figure - &exact),
            ("size of figure times 1e5 less size of patching", figure.mapv(f32::abs) - exact.mapv(f32::abs)),
        ],
    ];
    for maps in rows {
        let reach = charts::color_limit(maps.iter().map(|(_, map)| map.view()));
        page.row(maps.iter().map(|(title, map)| grid_map(title, map, 1, reach)).collect());
    }
}

/// What the notebook's code computes, and the evidence that it is not the integral.
fn slip(page: &mut Page, compared: &Compared) {
    page.section(
        "What the notebook's code computes",
        "Captum runs all nodes of the quadrature as one batch. The notebook's metric reads the logits of row 0 alone, so that only the \
         first node, next to the clean activation, has a gradient; the others count as 0. What this code gives for integrated gradients is \
         that one gradient, times what the activation moves, times the first weight. The notebook's printed table of heads on this \
         pair is larger than that by a factor of 18 or more, so whether its printed correlations come from one gradient is not shown.",
    );
    if let Some(node) = Quadrature::default().nodes().ok().and_then(|nodes| nodes.first().copied()) {
        page.text(&format!(
            "The first of its 50 nodes is at {:.6} of the way, with weight {:.6}.",
            node.at, node.weight
        ));
    }
    page.text(
        "Completeness is the evidence: along each line the attributions of a layer must sum to the change of the metric. What they miss \
         it by, layer by layer. (The notebook printed its gaps, and they are nearly the whole change of the metric; Captum only \
         reports them.)",
    );
    for (baseline, lines) in BASELINES.iter().zip(&compared.lines) {
        for (kind, (_, nodes)) in KINDS.iter().enumerate() {
            let [true_, literal] = [&lines.integrated, &lines.literal].map(|of| &of.completeness[kind]);
            let row = |layer: usize| {
                let at = [0, layer];
                vec![
                    format!("L{layer}"),
                    format!("{:.4}", true_.change[at]),
                    true_.steps[layer].to_string(),
                    format!("{:.1e}", true_.gap[at]),
                    format!("{:.4}", literal.gap[at]),
                ]
            };
            page.text(&format!("{nodes}, {baseline} baseline:"));
            let header = ["layer", "change of the metric", "steps", "gap", "gap of the notebook's figure"];
            page.table(&header, (0..true_.steps.len()).map(row).collect());
        }
    }
}
