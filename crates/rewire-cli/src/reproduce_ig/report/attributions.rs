//! The report's sections on activation patching, and on integrated gradients to both baselines
//! with their comparison.

use ndarray::{Array2, Ix2};
use rewire_analysis::Effects;
use rewire_analysis::stats::Comparison;
use rewire_report::Page;
use rewire_report::charts::{self, Chart, HeatMapLabels, Meaning, Point, StraightLine};

use crate::reproduce_ig::results::TOP_NODES;
use rewire_report::names::{head_name, numbered};
use rewire_report::numbers::number;
use rewire_studies::integrated_gradients::{BASELINES, Compared, KINDS, Lines, TOP, flat, shares};

/// Most points of a scatter plot: more would hide each other, so only the largest are drawn.
const MOST_POINTS: usize = 3000;

/// Number of neurons above which a map is wider than the page.
const WIDE: usize = 880;
/// The note on such a map.
const SCROLL: &str = "Each neuron is one pixel wide. Scroll to the right for more neurons and for the color scale.";

pub(super) fn exact(page: &mut Page, compared: &Compared) {
    page.section(
        "Activation patching",
        "Exact: the clean run takes the activation of one neuron or head, at all positions, from the corrupted run. \
         The effect is the change of the logit difference, as a share of the clean-corrupted difference. An effect of \
         -1 removes all of the behavior.",
    );
    if compared.units(0) > WIDE {
        page.text(SCROLL);
    }
    for (kind, (_, name)) in KINDS.iter().enumerate() {
        page.row(vec![map(
            &format!("Activation patching, {name}"),
            &compared.exact.effects[kind],
            Meaning::of(&compared.exact),
        )]);
    }
}

/// Adds the maps of integrated gradients and of the notebook's figure for one baseline, and their
/// comparison with patching.
pub(super) fn integrated(page: &mut Page, compared: &Compared, baseline: usize) {
    let name = BASELINES[baseline];
    let lead = match baseline {
        0 => {
            "The line goes from the clean activation to zero. For neurons it goes to their activation when the input \
             of the MLP is zero. Attributions are in logits; below 0 supports the behavior. The attributions of a \
             layer sum to the change of the logit difference along the line."
        }
        _ => {
            "The line goes from the clean activation to the corrupted activation. Attributions are in logits; below 0 \
             supports the behavior."
        }
    };
    page.section(&format!("Integrated gradients, {name} baseline"), lead);
    if compared.units(0) > WIDE {
        page.text(SCROLL);
    }
    let Lines { integrated, literal_means, .. } = &compared.lines[baseline];
    for (kind, (_, nodes)) in KINDS.iter().enumerate() {
        let title = format!("Integrated gradients, {nodes}, {name} baseline");
        let meaning = Meaning::of(&integrated.outcome);
        page.row(vec![map(&title, &integrated.outcome.effects[kind], meaning)]);
        let title = format!("The notebook's figure, {nodes}, {name} baseline (means)");
        // Means over positions and dimensions are no logits, and as small as they come.
        let meaning = Meaning { unit: "mean logits", floor: 0.0, ..meaning };
        page.row(vec![map(&title, &literal_means[kind], meaning)]);
    }
    analysis(page, compared, baseline);
}

/// Returns a map of the mean effects of a kind.
fn map(title: &str, effects: &Effects, meaning: Meaning) -> Chart {
    let values: Array2<f32> = effects.mean().into_dimensionality::<Ix2>().unwrap_or_default();
    let reach = charts::color_limit([values.view()]);
    grid_map(title, &values, usize::from(effects.kind.is_of_heads()), reach, meaning)
}

/// Returns a map of neurons or of heads, `[layer, unit]`.
pub(super) fn grid_map(title: &str, values: &Array2<f32>, kind: usize, reach: f32, meaning: Meaning) -> Chart {
    let unit = if kind == 1 { ("head", "H") } else { ("neuron", "N") };
    let (rows, columns) = (numbered("L", values.nrows()), numbered(unit.1, values.ncols()));
    let labels = HeatMapLabels { rows: ("layer", &rows), columns: (unit.0, &columns), reach };
    charts::effect_map(title, &values.view(), labels, meaning, None)
}

/// Returns a node's name.
fn node_name(compared: &Compared, kind: usize, flat: usize) -> String {
    let (layer, unit) = compared.place(kind, flat);
    if kind == 1 { head_name(layer, unit) } else { format!("L{layer}N{unit}") }
}

/// Adds the comparison of one baseline's attributions with patching.
fn analysis(page: &mut Page, compared: &Compared, baseline: usize) {
    page.text(
        "Compared with patching: integrated gradients on the left, the notebook's figure on the right. First row: the \
         attribution of each node and its exact effect, with the least-squares line. Both are shares of the \
         clean-corrupted difference, except that the notebook's figure is a mean over positions and dimensions. Second \
         row: patching minus attribution, plotted over the mean of both, after dividing each method's scores by their \
         largest absolute value. Its lines are the mean difference and the limits of agreement (1.96 standard \
         deviations).",
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
        let difference =
            |(what, _, comparison): &(&str, Vec<f32>, &Comparison)| mean_difference(compared, kind, what, comparison);
        page.row(both.iter().map(difference).collect());
        if exact.len() > MOST_POINTS {
            page.text(&format!(
                "The plots draw the {MOST_POINTS} of {} {nodes} that are furthest out. Correlations and lines use all \
                 {nodes}.",
                exact.len()
            ));
        }
    }
    differences(page, compared, lines);
    shared(page, compared, baseline);
}

/// Returns a plot of patching minus attribution over the mean of both, with the limits of
/// agreement.
fn mean_difference(compared: &Compared, kind: usize, what: &str, comparison: &Comparison) -> Chart {
    let (d, nodes) = (&comparison.difference, KINDS[kind].1);
    let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let points = points(compared, kind, &single(&d.means), &single(&d.differences));
    let [low, high] = d.limits();
    let level = |name, intercept, color| StraightLine { name, slope: 0.0, intercept, color };
    let levels = [
        level("mean difference", d.bias, "#555555"),
        level("+1.96 SD", high, "#c51b7d"),
        level("-1.96 SD", low, "#2166ac"),
    ];
    let title = format!("{nodes}: patching minus {what}");
    charts::scatter_with(&title, &points, ["mean of both, scaled", "difference, scaled"], &levels)
}

pub(super) fn least_squares<'a>(x: &[f32], y: &[f32]) -> Vec<StraightLine<'a>> {
    let fit = rewire_analysis::stats::regression(x.iter().copied().zip(y.iter().copied()));
    let line =
        |[slope, intercept]: [f64; 2]| StraightLine { name: "least squares", slope, intercept, color: "#555555" };
    fit.map(line).into_iter().collect()
}

/// Returns the largest absolute value.
fn largest(scores: &[f32]) -> f32 {
    scores.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()))
}

/// Returns the nodes that are furthest out along either axis.
fn points(compared: &Compared, kind: usize, x: &[f32], y: &[f32]) -> Vec<Point> {
    let (unit_x, unit_y) = (largest(x), largest(y));
    let far: Vec<f32> = x.iter().zip(y).map(|(x, y)| (x / unit_x).abs().max((y / unit_y).abs())).collect();
    let point =
        |i: usize| Point { x: x[i], y: y[i], layer: compared.place(kind, i).0, name: node_name(compared, kind, i) };
    rewire_analysis::stats::top_by_size(&far, MOST_POINTS).into_iter().map(point).collect()
}

/// Adds maps of the differences between the methods' scores, signed and absolute, for neurons and
/// heads.
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
        for (what, found) in [("integrated gradients", integrated), ("notebook's figure", literal)] {
            let maps = [
                (format!("{what} minus patching, {nodes}"), grid(&|i| found[i] - exact[i])),
                (format!("|{what}| minus |patching|, {nodes}"), grid(&|i| found[i].abs() - exact[i].abs())),
            ];
            let reach = charts::color_limit(maps.iter().map(|(_, map)| map.view()));
            page.row(maps.iter().map(|(title, map)| grid_map(title, map, kind, reach, Meaning::default())).collect());
        }
    }
    page.text(
        "Each method's scores are divided by their largest absolute value over all layers. The notebook's \
         zero-baseline maps scale each column separately (one column is one head index across layers), so heads of \
         different columns cannot be compared there.",
    );
    let outliers = lines.comparisons[1].difference.outliers();
    let names = |of: &[usize]| of.iter().map(|&i| node_name(compared, 1, i)).collect::<Vec<_>>().join(", ");
    page.text(&match outliers.as_slice() {
        [] => "No head is outside the limits of agreement.".to_owned(),
        some => format!("Heads outside the limits of agreement: {}.", names(some)),
    });
    let neurons = lines.comparisons[0].difference.outliers().len();
    page.text(&format!(
        "Neurons outside the limits of agreement: {neurons} of {}.",
        lines.comparisons[0].difference.means.len()
    ));
}

/// Adds the nodes of largest exact effect, with their attributions.
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
                number(exact[i]),
                number((f64::from(found[i]) / (clean - corrupted)) as f32),
                rank,
            ]);
        }
    }
    page.text("The nodes of largest exact effect. Both scores are shares of the clean-corrupted difference:");
    page.table(
        &["node", "kind", "patching (share)", "integrated gradients (share)", "rank by integrated gradients"],
        rows,
    );
}
