//! Tests of the checks with the notebook's printed lines, read from a copy of its output.

use ndarray::{Array2, Array3, ArrayD};
use rewire_analysis::integrated::{Completeness, Curves, Integrated};
use rewire_analysis::node::NodeKind;
use rewire_analysis::run::{Direction, Scale};
use rewire_analysis::stats::Comparison;
use rewire_analysis::{Baselines, Effects, Method, Outcome};

use super::super::analyze::{Compared, HEADS, Lines, NEURONS};
use super::super::curves::{Contrasted, Drawn};
use super::super::printed::{ACCURACY, ACCURACY_WITHOUT, MEAN_ABLATION, ZERO_ABLATION};
use super::*;

/// The lines that the notebook prints.
const NOTEBOOK: &str = include_str!("../notebook.txt");

/// Returns the numbers after `start` in each printed line that begins with `start`, in order.
fn printed(start: &str) -> Vec<Vec<f64>> {
    let found: Vec<Vec<f64>> = NOTEBOOK.lines().filter_map(|line| line.strip_prefix(start)).map(numbers).collect();
    assert!(!found.is_empty(), "nothing printed begins with `{start}`");
    found
}

/// Returns the numbers in a text. Digits inside a name such as `UnsqueezeBackward0` do not count.
fn numbers(text: &str) -> Vec<f64> {
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)));
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// Returns the first number of each printed line that begins with `start`.
fn single(start: &str) -> Vec<f64> {
    printed(start).iter().map(|line| line[0]).collect()
}

/// Returns the printed scalars: the figure of L9H6, its patching score, and its patching score on
/// the contrastive pair.
fn scalars() -> Vec<f64> {
    let lines = printed("tensor(").into_iter().zip(NOTEBOOK.lines().filter(|line| line.starts_with("tensor(")));
    lines.filter(|(_, line)| !line.starts_with("tensor([")).map(|(numbers, _)| numbers[0]).collect()
}

/// Returns the three printed curves.
fn printed_curves() -> Vec<Vec<f64>> {
    printed("[tensor")
}

/// Returns the six printed heads and their patching scores.
fn printed_scores() -> Vec<(Head, f64)> {
    let heads = printed("Attention head ").into_iter().map(|head| Head::new(head[0] as usize, head[1] as usize));
    heads.zip(printed("IG score: ").into_iter().map(|scores| scores[1])).collect()
}

fn effects(kind: NodeKind, units: usize, of: impl Fn(usize, usize) -> f64) -> Effects {
    let values = Array2::from_shape_fn((12, units), |(layer, unit)| of(layer, unit) as f32).into_dyn();
    Effects::new(kind, values.insert_axis(ndarray::Axis(0)), vec![17])
}

fn outcome(effects: Vec<Effects>) -> Outcome {
    Outcome {
        method: Method::IntegratedGradients,
        direction: Direction::Noising,
        scale: Scale::Metric,
        vanished: Vec::new(),
        metric: "logit-diff",
        baselines: Baselines {
            clean: vec![single("Clean logit difference: ")[0] as f32],
            corrupted: vec![single("Corrupted logit difference: ")[0] as f32],
        },
        effects,
    }
}

/// Returns the notebook's figure for (9, 6) on the first pair, and 0 for other heads.
fn figure_of(layer: usize, head: usize) -> f64 {
    if (layer, head) == (9, 6) { scalars()[0] } else { 0.0 }
}

fn lines(baseline: usize) -> Lines {
    let zeros = || vec![effects(NEURONS, 3072, |_, _| 0.0), effects(HEADS, 12, |_, _| 0.0)];
    // There are 24 lines per baseline: heads and neurons of each layer in turn.
    let deltas = |layer: usize, site: &str| {
        let start = format!("Error (delta) for blocks.{layer}.{site} attribution: ");
        single(&start)[baseline] as f32
    };
    let gap = |site: &str| Array2::from_shape_fn((1, 12), |(_, layer)| deltas(layer, site)).into_dyn();
    let complete = |kind, gap: ArrayD<f32>| Completeness {
        kind,
        change: gap.clone(),
        allowed: gap.mapv(f32::abs),
        gap,
        steps: vec![1; 12],
    };
    let literal = Integrated {
        outcome: outcome(zeros()),
        completeness: vec![complete(NEURONS, gap("mlp.hook_post")), complete(HEADS, gap("attn.hook_result"))],
    };
    let between =
        ["between IG and AP attributions", "between IG with corrupted baseline and AP attributions"][baseline];
    let compared = |nodes: &str| {
        let pearson = Some(single(&format!("Correlation coefficient {between} for {nodes}: "))[0]);
        let jaccard = single("Jaccard score for MLP neurons: ")[baseline];
        Comparison { pearson, jaccard, ..Comparison::new(&[0.0], &[0.0], 1) }
    };
    Lines {
        integrated: literal.clone(),
        literal,
        literal_means: vec![effects(NEURONS, 3072, |_, _| 0.0), effects(HEADS, 12, figure_of)],
        comparisons: [compared("neurons"), compared("attention")],
        literal_comparisons: [compared("neurons"), compared("attention")],
    }
}

fn curve(values: &[f64]) -> Curves {
    let values = Array3::from_shape_fn((1, 1, values.len()), |(_, _, place)| values[place] as f32);
    Curves { places: vec![0.0; values.shape()[2]], values }
}

/// Returns curves of L9H6, L2H5 and L10H3. The first is not printed, so it is a line that
/// ends at the value of its printed score.
fn drawn() -> Drawn {
    let curves = printed_curves();
    let [clean, corrupted] = ["Clean", "Corrupted"].map(|run| single(&format!("{run} logit difference: "))[0]);
    let end = curves[0][0] + scalars()[1] * (clean - corrupted);
    let at = |node: usize, place: usize| match node {
        0 => curves[0][0] + (end - curves[0][0]) * place as f64 / 49.0,
        _ => curves[node - 1][place],
    };
    let values = Array3::from_shape_fn((1, 3, 50), |(_, node, place)| at(node, place) as f32);
    let inside = Curves { places: vec![0.0; 50], values };
    Drawn { heads: vec![Head::new(9, 6), Head::new(2, 5), Head::new(10, 3)], wide: inside.clone(), inside }
}

fn contrasted() -> Contrasted {
    let [clean, corrupted] = ["Clean", "Corrupted"].map(|run| single(&format!("{run} logit difference: "))[1]);
    let [first_clean, first_corrupted] =
        ["Clean", "Corrupted"].map(|run| single(&format!("{run} logit difference: "))[0]);
    Contrasted {
        name: "as printed",
        prompts: [String::new(), String::new()],
        logit_differences: [clean, corrupted],
        head: Head::new(9, 6),
        integrated: 0.0,
        gap: 0.0,
        literal: printed("tensor([")[0][0] as f32,
        literal_gap: single("Error (delta) for blocks.9.attn.hook_result attribution: ")[2] as f32,
        patched: (scalars()[2] * (first_clean - first_corrupted)) as f32,
        curve: curve(&printed_curves()[2]),
    }
}

/// Returns results equal to the figures that the notebook prints.
fn as_printed() -> Found {
    let scores = printed_scores();
    let score = |layer, head| scores.iter().find(|(of, _)| *of == Head::new(layer, head)).map_or(0.0, |(_, s)| *s);
    let exact = outcome(vec![effects(NEURONS, 3072, |_, _| 0.0), effects(HEADS, 12, score)]);
    Found {
        compared: Compared { exact, lines: [lines(0), lines(1)] },
        averaged: None,
        study: None,
        curves: drawn(),
        contrasts: vec![contrasted()],
    }
}

/// Returns the names of the checks that differ.
fn differing(found: &Found) -> Vec<String> {
    checks(found).into_iter().filter(|c| c.verdict == Verdict::Differs).map(|c| c.what).collect()
}

#[test]
fn the_printed_figures_pass_every_check() {
    let found = as_printed();
    assert_eq!(checks(&found).len(), 25);
    assert_eq!(differing(&found), [""; 0]);
}

#[test]
fn each_figure_is_checked() {
    let changed = |change: fn(&mut Found)| {
        let mut found = as_printed();
        change(&mut found);
        differing(&found)
    };
    assert_eq!(changed(|f| f.compared.exact.effects[1].values[[0, 7, 3]] = 0.0), ["patching score of L7H3"]);
    let of_delta = ["errors (delta) that Captum printed, corrupted baseline, 12 layers of heads and neurons"];
    assert_eq!(changed(|f| f.compared.lines[1].literal.completeness[1].gap[[0, 11]] = 0.0), of_delta);
    let of_jaccard = ["Jaccard of the 30 largest neurons, zero baseline (the notebook's figure)"];
    assert_eq!(changed(|f| f.compared.lines[0].literal_comparisons[0].jaccard = 0.112), of_jaccard);
    // One point in the middle is off by three in its last printed digit.
    assert_eq!(changed(|f| f.curves.inside.values[[0, 1, 25]] += 3e-4), ["curve of L2H5"]);
    assert_eq!(changed(|f| f.curves.inside.values[[0, 2, 30]] += 3e-4), ["curve of L10H3"]);
    assert_eq!(changed(|f| f.contrasts[0].curve.values[[0, 0, 1]] -= 3e-4), ["contrastive pair, curve of L9H6"]);
    assert_eq!(changed(|f| f.contrasts[0].literal *= 1.01), ["contrastive pair, the notebook's figure of L9H6"]);
    let of_patching = ["contrastive pair, patching of L9H6 as a share of the first pair's difference"];
    assert_eq!(changed(|f| f.contrasts[0].patched *= 1.01), of_patching);
    // A curve of L9H6 with the same end as the curve of L2H5 contradicts its printed score.
    let of_end = ["end of the curve of L9H6, from its printed patching score"];
    assert_eq!(changed(|f| f.curves.inside.values[[0, 0, 49]] = 4.2857), of_end);
}

#[test]
fn curves_with_too_few_points_fail_the_check() {
    let mut found = as_printed();
    found.contrasts[0].curve = curve(&printed_curves()[2][..49]);
    assert!(differing(&found).contains(&"contrastive pair, curve of L9H6".to_owned()));
    found.curves.heads = vec![Head::new(0, 0); 3];
    let missing = differing(&found);
    assert!(missing.contains(&"curve of L2H5".to_owned()), "{missing:?}");
    assert!(missing.contains(&"end of the curve of L9H6, from its printed patching score".to_owned()), "{missing:?}");
}

#[test]
fn constants_equal_the_printed_figures() {
    let rounds_to = |constant: f64, text: f64, digits: i32| (constant - text).abs() <= 0.5001 * 10_f64.powi(-digits);
    assert!(rounds_to(SD_OF_SIZES, single("Standard deviation of differences: ")[0], 7));
    assert!((FIGURE - scalars()[0]).abs() < 1e-16);
    let heads = OUTLIERS.map(|(head, _)| [head.layer as f64, head.head as f64]);
    assert_eq!(printed("[(")[0], heads.as_flattened());
    let accuracies: Vec<Vec<f64>> =
        NOTEBOOK.lines().filter(|l| l.starts_with("0.") || l.starts_with("[0.")).map(numbers).collect();
    assert_eq!(accuracies, [vec![ACCURACY], ACCURACY_WITHOUT.to_vec()]);
    let changes = ["attribution score differences and performance score", "IG attribution score and performance score"];
    let of = |what: &str, end: &str| single(&format!("Correlation coefficient between {what} {end}: "));
    let zero = [of(changes[0], "differences"), of(changes[1], "differences")].concat();
    assert!(ZERO_ABLATION.iter().zip(&zero).all(|(c, text)| rounds_to(*c, *text, 7)), "{zero:?}");
    let mean = of(changes[1], "difference under mean ablation");
    assert!(MEAN_ABLATION.iter().flatten().zip(&mean).all(|(c, text)| rounds_to(*c, *text, 7)), "{mean:?}");
    assert_eq!((zero.len(), mean.len()), (3, 2));
}

#[test]
fn verdicts_follow_the_numbers() {
    assert_eq!(Check::figure("", 4.276, 4.2764, 3, OF_LOGITS).verdict, Verdict::Agrees);
    assert_eq!(Check::figure("", 4.276, 4.277, 3, OF_LOGITS).verdict, Verdict::Differs);
    assert_eq!(Check::figure("", 0.2351, f64::NAN, 4, OF_SHARES).verdict, Verdict::Differs);
    assert_eq!(small("", 3.362e-8, 3.3621e-8).verdict, Verdict::Agrees);
    assert_eq!(small("", 3.362e-8, 3.4e-8).verdict, Verdict::Differs);
    assert_eq!(deltas("", &DELTAS[0], |layer, kind| DELTAS[0][layer][kind]).verdict, Verdict::Agrees);
    assert_eq!(deltas("", &DELTAS[0], |_, _| 0.0).verdict, Verdict::Differs);
    assert_eq!(deltas("", &DELTAS[0], |_, _| f64::NAN).verdict, Verdict::Differs);
}

#[test]
fn figures_that_the_code_does_not_reproduce_have_no_verdict() {
    let found = as_printed();
    let rows = asides(&found.compared);
    let [figure, sd, outliers] = rows.as_slice() else { panic!("{} figures", rows.len()) };
    assert_eq!((figure.printed.as_str(), figure.ours.as_str()), ("-4.5160e-7", "-4.5160e-7"));
    assert_eq!(sd.printed, "0.0203433");
    assert_eq!(outliers.printed, "L7H3 L8H10 L9H6 L9H9 L10H6 L11H10");
    assert!(checks(&found).iter().all(|check| rows.iter().all(|row| row.what != check.what)));
}
