//! Comparisons of the figures that the notebook prints with ours, for GPT-2 small only.

use rewire_hooks::Head;

use crate::{Check, Verdict};

use super::analyze::{BASELINES, Compared, KINDS};
use super::curves::Contrasted;
use super::printed::{
    CONTRASTIVE_DELTA, CONTRASTIVE_FIGURE, CONTRASTIVE_LOGIT_DIFFERENCES, CONTRASTIVE_PATCHING, CORRELATIONS, DELTAS,
    FIGURE, JACCARD, LOGIT_DIFFERENCES, NAME_MOVER, OUTLIERS, SD_OF_SIZES,
};
use super::printed_curves::{CONTRASTIVE_9_6, HEAD_2_5, HEAD_10_3, POINTS};
use super::study::Found;

/// Tolerance for printed deltas: float32 rounding in sums of thousands of attributions.
const DELTA_TOLERANCE: f64 = 1e-3;
/// Tolerance for logit differences on another machine. GPT-2's logits have absolute values up to
/// about 100, whose float32 spacing is 8e-6, and the rounding of 12 layers adds up.
const OF_LOGITS: f64 = 1e-4;
/// Tolerance for shares of a logit difference of 7.
const OF_SHARES: f64 = 3e-5;
/// Tolerance for the notebook's figure, as a share of the figure.
const OF_FIGURE: f64 = 1e-3;

/// Compares the figures that the notebook prints with the measured figures.
#[must_use]
pub fn checks(found: &Found) -> Vec<Check> {
    let mut checks = first_pair(&found.compared);
    checks.extend(patched(&found.compared));
    checks.extend(curves(found));
    if let Some(as_printed) = found.contrasts.first() {
        checks.extend(contrastive_pair(&found.compared, as_printed));
    }
    checks
}

/// Checks the logit differences, and the comparison of both methods' scores.
fn first_pair(compared: &Compared) -> Vec<Check> {
    let [clean, corrupted] = compared.logit_differences();
    let mut checks = vec![
        Check::figure("clean logit difference", LOGIT_DIFFERENCES[0], clean, 3, OF_LOGITS),
        Check::figure("corrupted logit difference", LOGIT_DIFFERENCES[1], corrupted, 3, OF_LOGITS),
    ];
    for (baseline, lines) in compared.lines.iter().enumerate() {
        let name = BASELINES[baseline];
        for (kind, (_, nodes)) in KINDS.iter().enumerate() {
            let r = lines.literal_comparisons[kind].pearson.unwrap_or(f64::NAN);
            let what = format!("correlation with patching, {nodes}, {name} baseline (the notebook's figure)");
            checks.push(Check::figure(what, CORRELATIONS[baseline][kind], r, 4, OF_SHARES));
        }
        let jaccard = lines.literal_comparisons[0].jaccard;
        let what = format!("Jaccard of the 30 largest neurons, {name} baseline (the notebook's figure)");
        checks.push(Check::figure(what, JACCARD[baseline], jaccard, 4, 0.0));
        checks.push(deltas(name, &DELTAS[baseline], |layer, kind| {
            // The notebook prints heads first.
            f64::from(lines.literal.completeness[1 - kind].gap[[0, layer]])
        }));
    }
    checks
}

/// Checks patching of the six heads on which the methods differ in the notebook.
fn patched(compared: &Compared) -> impl Iterator<Item = Check> {
    OUTLIERS.into_iter().map(|(head, score)| {
        let what = format!("patching score of {head}");
        Check::figure(what, score, f64::from(compared.exact_of(head)), 5, OF_SHARES)
    })
}

/// A printed figure and ours, without a verdict.
pub struct Aside {
    /// Name of the figure.
    pub what: String,
    /// The figure as the notebook prints it.
    pub printed: String,
    /// The figure as this run measures it.
    pub ours: String,
}

/// Returns the figures that the notebook prints from its table of heads on the first pair. The
/// notebook's code does not give scores of that size (see docs/methods/integrated-gradients.md).
/// Our figures therefore need not agree, and there is no verdict.
#[must_use]
pub fn asides(compared: &Compared) -> Vec<Aside> {
    let list = |heads: &[Head]| heads.iter().map(Head::to_string).collect::<Vec<_>>().join(" ");
    let aside = |what: &str, printed: String, ours: String| Aside { what: what.to_owned(), printed, ours };
    vec![
        aside(
            "the notebook's figure of L9H6",
            format!("{FIGURE:.4e}"),
            format!("{:.4e}", compared.literal_of(NAME_MOVER)),
        ),
        aside(
            "standard deviation of |patching minus the notebook's figure times 1e5|",
            format!("{SD_OF_SIZES:.7}"),
            format!("{:.7}", compared.literal_sd()),
        ),
        aside(
            "outlier heads by the notebook's rule, on its figure",
            list(&OUTLIERS.map(|(head, _)| head)),
            list(&compared.literal_outliers()),
        ),
    ]
}

/// Checks the curves on the first pair: the two that the notebook prints, and the end of a third,
/// which follows from a printed score.
fn curves(found: &Found) -> Vec<Check> {
    let of = |head| {
        let drawn = found.curves.heads.iter().position(|h| *h == head);
        drawn.map_or_else(Vec::new, |node| found.curves.inside.mean(node))
    };
    let mut checks = vec![
        points("curve of L2H5", &HEAD_2_5, &of(Head::new(2, 5))),
        points("curve of L10H3", &HEAD_10_3, &of(Head::new(10, 3))),
    ];
    let score = OUTLIERS.iter().find(|(head, _)| *head == NAME_MOVER).map_or(f64::NAN, |(_, score)| *score);
    let end = HEAD_2_5[0] + score * (LOGIT_DIFFERENCES[0] - LOGIT_DIFFERENCES[1]);
    let got = of(NAME_MOVER).last().map_or(f64::NAN, |v| f64::from(*v));
    let what = "end of the curve of L9H6, from its printed patching score";
    checks.push(Check::figure(what, end, got, 4, OF_LOGITS));
    checks
}

fn contrastive_pair(compared: &Compared, as_printed: &Contrasted) -> Vec<Check> {
    let [clean, corrupted] = as_printed.logit_differences;
    let [expected_clean, expected_corrupted] = CONTRASTIVE_LOGIT_DIFFERENCES;
    let [first_clean, first_corrupted] = compared.logit_differences();
    let of_first = f64::from(as_printed.patched) / (first_clean - first_corrupted);
    let delta = f64::from(as_printed.literal_gap);
    vec![
        Check::figure("contrastive pair, clean logit difference", expected_clean, clean, 3, OF_LOGITS),
        Check::figure("contrastive pair, corrupted logit difference", expected_corrupted, corrupted, 3, OF_LOGITS),
        small("contrastive pair, the notebook's figure of L9H6", CONTRASTIVE_FIGURE, f64::from(as_printed.literal)),
        Check::figure(
            "contrastive pair, error (delta) of layer 9's heads",
            CONTRASTIVE_DELTA,
            delta,
            4,
            DELTA_TOLERANCE,
        ),
        points("contrastive pair, curve of L9H6", &CONTRASTIVE_9_6, &as_printed.curve.mean(0)),
        Check::figure(
            "contrastive pair, patching of L9H6 as a share of the first pair's difference",
            CONTRASTIVE_PATCHING,
            of_first,
            4,
            OF_SHARES,
        ),
    ]
}

/// Compares a printed number far below 1, of five digits, with ours.
fn small(what: &str, expected: f64, got: f64) -> Check {
    Check {
        what: what.to_owned(),
        expected: format!("{expected:.4e}"),
        got: format!("{got:.4e}"),
        verdict: Verdict::of((expected - got).abs() < (0.5e-4 + OF_FIGURE) * expected.abs()),
    }
}

/// Compares the points of a printed curve, of four decimals each, with ours.
fn points(what: &str, printed: &[f64; POINTS], ours: &[f32]) -> Check {
    let tolerance = 0.5e-4 + OF_LOGITS;
    let expected = format!("{POINTS} points within {tolerance:.1e}");
    counted(what, expected, printed.iter().copied(), ours.iter().map(|v| f64::from(*v)).collect(), tolerance)
}

/// Compares the 24 printed errors for one baseline with ours.
fn deltas(baseline: &str, printed: &[[f64; 2]; 12], ours: impl Fn(usize, usize) -> f64) -> Check {
    let what = format!("errors (delta) that Captum printed, {baseline} baseline, 12 layers of heads and neurons");
    let ours = (0..printed.len()).flat_map(|layer| [0, 1].map(|kind| ours(layer, kind))).collect();
    let expected = format!("24 within {DELTA_TOLERANCE}");
    counted(&what, expected, printed.as_flattened().iter().copied(), ours, DELTA_TOLERANCE)
}

/// Compares printed numbers with ours one by one.
fn counted(
    what: &str,
    expected: String,
    printed: impl ExactSizeIterator<Item = f64>,
    ours: Vec<f64>,
    tolerance: f64,
) -> Check {
    let (n, n_ours) = (printed.len(), ours.len());
    let differences: Vec<f64> = printed.zip(ours).map(|(printed, ours)| (printed - ours).abs()).collect();
    let near = differences.iter().filter(|d| **d < tolerance).count();
    let worst = differences.iter().fold(0.0_f64, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(*d) });
    Check {
        what: what.to_owned(),
        expected,
        got: format!("{near}; largest difference {worst:.1e}"),
        verdict: Verdict::of(near == n && n_ours == n),
    }
}

#[cfg(test)]
mod tests;
