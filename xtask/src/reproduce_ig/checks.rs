//! The figures that the notebook prints, beside ours; for GPT-2 small alone.

use rewire_report::{Check, Verdict};

use super::Found;
use super::analyse::{BASELINES, KINDS};
use super::printed_curves::{CONTRASTIVE_9_6, HEAD_2_5, HEAD_10_3, POINTS};

/// The heads that the notebook finds to be outliers, with their scores by activation patching.
pub(super) const OUTLIERS: [((usize, usize), f64); 6] = [
    ((7, 3), -0.10789),
    ((8, 10), -0.14233),
    ((9, 6), 0.00889),
    ((9, 9), -0.11382),
    ((10, 6), -0.07559),
    ((11, 10), 0.21538),
];

/// Correlations of the notebook's attributions with patching, by baseline: neurons, then heads.
const CORRELATIONS: [[f64; 2]; 2] = [[0.2351, 0.3064], [0.9852, 0.9548]];
/// Jaccard indices of the 30 largest neurons, by baseline.
const JACCARD: [f64; 2] = [0.1111, 0.875];

/// Captum's convergence errors as the notebook prints them, by baseline and layer: heads, then neurons. They are those of the
/// figure that its metric made of the attributions, and so near minus the whole change of the metric.
const DELTAS: [[[f64; 2]; 12]; 2] = [
    [
        [1.5821, 6.2935],
        [0.0784, 0.6687],
        [0.2222, 1.6564],
        [0.7107, 3.3847],
        [1.054, 0.9486],
        [1.1306, 3.1223],
        [0.8233, 2.4615],
        [1.1756, 0.2908],
        [1.6124, -0.8814],
        [-0.9383, 0.8226],
        [-0.5773, 0.057],
        [-0.1852, -0.804],
    ],
    [
        [-0.0801, 5.3677],
        [0.0562, -0.107],
        [-0.0128, -0.1195],
        [0.2566, 0.1361],
        [0.0511, -0.0882],
        [0.3684, 0.2477],
        [0.367, -0.0405],
        [1.3273, 0.4582],
        [2.3822, 0.1205],
        [1.457, 0.6441],
        [-1.0445, 0.4524],
        [-1.9877, 0.4005],
    ],
];

/// How far a printed delta may be from ours: its four digits, and what float32 adds to sums of thousands of attributions.
const DELTA_TOLERANCE: f64 = 1e-3;

pub(super) fn checks(found: &Found) -> Vec<Check> {
    let compared = &found.compared;
    let [clean, corrupted] = compared.logit_differences();
    let mut checks = vec![
        figure("clean logit difference", 4.276, clean, 3, OF_LOGITS),
        figure("corrupted logit difference", -2.738, corrupted, 3, OF_LOGITS),
    ];
    for (baseline, lines) in compared.lines.iter().enumerate() {
        let name = BASELINES[baseline];
        for (kind, (_, nodes)) in KINDS.iter().enumerate() {
            let r = lines.literal_comparisons[kind].pearson.unwrap_or(f64::NAN);
            let what = format!("correlation with patching, {nodes}, {name} baseline (the notebook's figure)");
            checks.push(figure(&what, CORRELATIONS[baseline][kind], r, 4, OF_SHARES));
        }
        let jaccard = lines.literal_comparisons[0].jaccard;
        let what = format!("Jaccard of the 30 largest neurons, {name} baseline (the notebook's figure)");
        checks.push(figure(&what, JACCARD[baseline], jaccard, 4, 0.0));
        checks.push(deltas(name, &DELTAS[baseline], |layer, kind| {
            // The notebook prints heads first.
            f64::from(lines.literal.completeness[1 - kind].gap[[0, layer]])
        }));
    }
    let outliers = compared.literal_outliers();
    let list =
        |heads: &[(usize, usize)]| heads.iter().map(|(l, h)| format!("({l}, {h})")).collect::<Vec<_>>().join(" ");
    let expected: Vec<_> = OUTLIERS.iter().map(|(head, _)| *head).collect();
    checks.push(Check {
        what: "outlier heads (by the notebook's rule, on its figure)".to_owned(),
        expected: list(&expected),
        got: list(&outliers),
        verdict: verdict(expected == outliers),
    });
    for (head, score) in OUTLIERS {
        let what = format!("patching score of ({}, {})", head.0, head.1);
        checks.push(figure(&what, score, f64::from(compared.exact_of(head)), 5, OF_SHARES));
    }
    for (head, printed) in [((2, 5), &HEAD_2_5), ((10, 3), &HEAD_10_3)] {
        let drawn = found.curves.heads.iter().position(|of| *of == head);
        let ours = drawn.map_or_else(Vec::new, |number| found.curves.inside.mean(number));
        checks.push(curve(&format!("curve of ({}, {})", head.0, head.1), printed, &ours));
    }
    if let Some(printed) = found.contrasts.first() {
        let [clean, corrupted] = printed.logit_differences;
        checks.push(figure("contrastive pair as printed, clean logit difference", 1.458, clean, 3, OF_LOGITS));
        checks.push(figure("contrastive pair as printed, corrupted logit difference", -0.274, corrupted, 3, OF_LOGITS));
        let ours = printed.curve.mean(0);
        checks.push(curve("contrastive pair as printed, curve of (9, 6)", &CONTRASTIVE_9_6, &ours));
    }
    checks
}

/// What float32 rounding adds to logit differences on another machine.
const OF_LOGITS: f64 = 2e-4;
/// What it adds to shares and correlations.
const OF_SHARES: f64 = 3e-5;

fn figure(what: &str, expected: f64, got: f64, digits: usize, noise: f64) -> Check {
    Check::figure(what, expected, got, digits, noise)
}

/// A printed curve beside ours, point by point: each agrees to half of its fourth decimal and
/// rounding.
fn curve(what: &str, printed: &[f64; POINTS], ours: &[f32]) -> Check {
    let off = |(printed, ours): (&f64, &f32)| (printed - f64::from(*ours)).abs();
    let differences: Vec<f64> = printed.iter().zip(ours).map(off).collect();
    let near = differences.iter().filter(|d| **d <= 0.5e-4 + OF_LOGITS).count();
    let furthest = differences.iter().fold(0.0_f64, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(*d) });
    let [first, last] = [0, POINTS - 1].map(|at| printed[at]);
    Check {
        what: format!("{what}, {POINTS} points"),
        expected: format!("{first:.4} to {last:.4}"),
        got: format!("{near} agree; the furthest is off by {furthest:.1e}"),
        verdict: verdict(near == POINTS && ours.len() == POINTS),
    }
}

/// The 24 printed errors of one baseline beside ours.
fn deltas(baseline: &str, printed: &[[f64; 2]; 12], ours: impl Fn(usize, usize) -> f64) -> Check {
    let off = |(layer, of_layer): (usize, &[f64; 2])| [0, 1].map(|kind| (of_layer[kind] - ours(layer, kind)).abs());
    let differences: Vec<f64> = printed.iter().enumerate().flat_map(off).collect();
    let near = differences.iter().filter(|d| **d < DELTA_TOLERANCE).count();
    let worst = differences.iter().fold(0.0_f64, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(*d) });
    Check {
        what: format!("errors (delta) that Captum printed, {baseline} baseline, 12 layers of heads and neurons"),
        expected: format!("24 within {DELTA_TOLERANCE}"),
        got: format!("{near}; the furthest is off by {worst:.1e}"),
        verdict: verdict(near == differences.len()),
    }
}

fn verdict(agrees: bool) -> Verdict {
    if agrees { Verdict::Agrees } else { Verdict::Differs }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, ArrayD};
    use rewire_analysis::{
        Baselines, Comparison, Completeness, Curves, Direction, Effects, Integrated, Method, NodeKind, Outcome, Scale,
    };

    use super::super::analyse::{Compared, HEADS, Lines, NEURONS};
    use super::super::curves::{Contrasted, Drawn};
    use super::*;

    /// What the notebook printed of head (9, 6), without which it would be no outlier.
    const FIGURE_OF_9_6: f32 = -4.516e-7;

    fn effects(kind: NodeKind, units: usize, of: impl Fn(usize, usize) -> f32) -> Effects {
        let values = Array2::from_shape_fn((12, units), |(layer, unit)| of(layer, unit)).into_dyn();
        Effects { kind, values: values.insert_axis(ndarray::Axis(0)), lengths: vec![17] }
    }

    fn outcome(effects: Vec<Effects>) -> Outcome {
        Outcome {
            method: Method::IntegratedGradients,
            direction: Direction::Noising,
            scale: Scale::Metric,
            vanished: Vec::new(),
            metric: "logit-diff",
            baselines: Baselines { clean: vec![4.276], corrupted: vec![-2.738] },
            effects,
        }
    }

    fn lines(baseline: usize) -> Lines {
        let zeros = || vec![effects(NEURONS, 3072, |_, _| 0.0), effects(HEADS, 12, |_, _| 0.0)];
        let gap =
            |kind: usize| Array2::from_shape_fn((1, 12), |(_, layer)| DELTAS[baseline][layer][kind] as f32).into_dyn();
        let complete = |kind, gap: ArrayD<f32>| Completeness { kind, change: gap.clone(), gap, steps: vec![1; 12] };
        let literal = Integrated {
            outcome: outcome(zeros()),
            completeness: vec![complete(NEURONS, gap(1)), complete(HEADS, gap(0))],
        };
        let compared = |kind: usize| {
            let comparison = Comparison::new(&[0.0], &[0.0], 1);
            Comparison { pearson: Some(CORRELATIONS[baseline][kind]), jaccard: JACCARD[baseline], ..comparison }
        };
        let of_9_6 = |layer, head| if (layer, head) == (9, 6) { FIGURE_OF_9_6 } else { 0.0 };
        Lines {
            integrated: literal.clone(),
            literal,
            literal_means: vec![effects(NEURONS, 3072, |_, _| 0.0), effects(HEADS, 12, of_9_6)],
            comparisons: [compared(0), compared(1)],
            literal_comparisons: [compared(0), compared(1)],
        }
    }

    /// The lines that the notebook prints, copied from it.
    const PRINTED: &str = include_str!("notebook.txt");

    /// The numbers of a printed list of tensors.
    fn points(line: &str) -> Vec<f32> {
        let numbers = line.split("tensor([").skip(1).map(|rest| rest.split(']').next().unwrap_or_default());
        numbers.map(|number| number.parse().unwrap()).collect()
    }

    /// What is found where everything is as the notebook prints it.
    fn as_printed() -> Found {
        let score = |layer, head| OUTLIERS.iter().find(|(of, _)| *of == (layer, head)).map_or(0.0, |(_, s)| *s as f32);
        let exact = outcome(vec![effects(NEURONS, 3072, |_, _| 0.0), effects(HEADS, 12, score)]);
        // The curves are read from what the notebook prints, in the order in which it does: (2, 5),
        // (10, 3), and the pair's.
        let lists = PRINTED.lines().filter(|line| line.starts_with("[tensor("));
        let printed: Vec<Vec<f32>> = lists.map(points).collect();
        assert_eq!(printed.len(), 3);
        let curves = |of: &[Vec<f32>]| Curves {
            places: (0..POINTS).map(|place| place as f64).collect(),
            values: Array3::from_shape_fn((1, of.len(), POINTS), |(_, node, place)| of[node][place]),
        };
        let contrast = Contrasted {
            name: "as printed",
            prompts: [String::new(), String::new()],
            logit_differences: [1.458, -0.274],
            head: (9, 6),
            integrated: 0.0,
            gap: 0.0,
            patched: 0.0,
            curve: curves(&printed[2..]),
        };
        Found {
            compared: Compared { exact, lines: [lines(0), lines(1)] },
            study: None,
            curves: Drawn { heads: vec![(2, 5), (10, 3)], inside: curves(&printed[..2]), wide: curves(&printed[..2]) },
            contrasts: vec![contrast],
        }
    }

    #[test]
    fn what_is_as_printed_agrees_and_each_figure_is_checked() {
        let found = as_printed();
        let all = checks(&found);
        assert_eq!(all.len(), 22);
        for check in &all {
            assert_eq!(check.verdict, Verdict::Agrees, "{check:?}");
        }
        let differing = |change: fn(&mut Found)| {
            let mut found = as_printed();
            change(&mut found);
            checks(&found).iter().filter(|c| c.verdict == Verdict::Differs).count()
        };
        assert_eq!(
            differing(|f| f.compared.exact.effects[1].values[[0, 9, 6]] = 0.0),
            2,
            "its score, and the outliers"
        );
        assert_eq!(differing(|f| f.compared.lines[1].literal.completeness[1].gap[[0, 11]] = 0.0), 1);
        assert_eq!(differing(|f| f.compared.lines[0].literal_comparisons[0].jaccard = 0.112), 1);
        assert_eq!(differing(|f| f.contrasts[0].curve.values[[0, 0, 1]] = 1.4562), 1);
        assert_eq!(differing(|f| f.curves.inside.values[[0, 0, 30]] += 0.0004), 1);
        assert_eq!(differing(|f| f.curves.heads.reverse()), 2, "each list belongs to its own head");
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        assert_eq!(figure("", 4.276, 4.2764, 3, OF_LOGITS).verdict, Verdict::Agrees);
        assert_eq!(figure("", 4.276, 4.277, 3, OF_LOGITS).verdict, Verdict::Differs);
        assert_eq!(figure("", 0.2351, f64::NAN, 4, OF_SHARES).verdict, Verdict::Differs);
        assert_eq!(deltas("", &DELTAS[0], |layer, kind| DELTAS[0][layer][kind]).verdict, Verdict::Agrees);
        assert_eq!(deltas("", &DELTAS[0], |_, _| 0.0).verdict, Verdict::Differs);
        assert_eq!(deltas("", &DELTAS[0], |_, _| f64::NAN).verdict, Verdict::Differs);
    }
}
