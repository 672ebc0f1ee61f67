//! Comparisons of the figures that the notebook prints with ours, on the notebook's own prompts,
//! for Pythia-160m only.
//!
//! The prompts are the notebook's, so a figure agrees only if it equals the printed figure to its
//! last digit, up to float32 rounding.

use burn::tensor::backend::Backend;
use rewire_analysis::heads::CopyScores;
use rewire_hooks::Head;
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::Tokenizer;

use super::notebook::{INHIBITORS, Measured, measure};
use crate::{Check, Setup, StudyError, Verdict};

/// Copy scores that the notebook prints, in percent. The notebook prints all scores above 0, and
/// its stored output ends after the last score in this list.
const COPYING: [(Head, f64); 14] = [
    (Head::new(4, 10), 8.571428571428571),
    (Head::new(5, 0), 100.0),
    (Head::new(5, 9), 23.333333333333332),
    (Head::new(6, 6), 2.857142857142857),
    (Head::new(7, 8), 33.80952380952381),
    (Head::new(7, 11), 0.4761904761904762),
    (Head::new(8, 1), 39.523809523809526),
    (Head::new(8, 2), 98.57142857142858),
    (Head::new(8, 8), 2.857142857142857),
    (Head::new(8, 10), 100.0),
    (Head::new(9, 2), 0.9523809523809524),
    (Head::new(9, 4), 20.952380952380953),
    (Head::new(9, 6), 6.190476190476191),
    (Head::new(9, 7), 2.380952380952381),
];
/// Negative copy scores that the notebook prints, in percent: copy scores with the sign of the
/// head's output reversed.
const NEGATIVE_COPYING: [(Head, f64); 3] =
    [(Head::new(6, 5), 0.4761904761904762), (Head::new(8, 9), 100.0), (Head::new(9, 5), 20.476190476190474)];
/// Printed S2-inhibition of [`INHIBITORS`]: attention to S2, change of the logit difference, change
/// of the movers' attention to S1.
const INHIBITION: [[f64; 3]; 2] = [[0.798, -4.391, 0.269], [0.291, -2.280, 0.152]];
/// Printed sums of the bar charts, in the order of [`totals`].
const TOTALS: [f64; 6] = [1.15, 0.23, 0.15, 0.79, 0.24, 0.35];

/// Tolerance for mean logit differences on another machine. Float32 rounding is about 2e-5 for
/// logits of 10 to 20.
const LOGITS: f64 = 2e-4;
/// Tolerance for shares, attention, and sums of a few shares on another machine.
const SHARES: f64 = 1e-4;

/// Returns whether a model with this name and configuration is the notebook's: fully trained
/// Pythia-160m. The notebook's figures are for processed weights.
#[must_use]
pub fn is_the_notebooks_model(name: &str, config: &TransformerConfig) -> bool {
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let TransformerConfig { n_layers, n_heads, d_model, parallel_block, .. } = *config;
    name.trim_end_matches('/').rsplit('/').next() == Some("pythia-160m")
        && ["main", "step143000"].contains(&revision)
        && (n_layers, n_heads, d_model, parallel_block) == (12, 12, 768, true)
}

/// Measures the notebook's figures on its own prompts, and compares them with the printed figures.
///
/// # Errors
/// [`StudyError`], for example if a name of the notebook is not a single token.
pub fn checks<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
) -> Result<Vec<Check>, StudyError> {
    Ok(compared(&measure(model, setup, tokenizer)?))
}

fn compared(found: &Measured) -> Vec<Check> {
    let [clean, corrupted] = found.logit_differences;
    let [before, after] = found.backup.logit_differences();
    let mut checks = vec![
        Check::figure("clean logit difference", 4.1341, clean, 4, LOGITS),
        Check::figure("corrupted logit difference", -4.0757, corrupted, 4, LOGITS),
        Check::figure("logit difference before ablation", 4.1340785027, before, 10, LOGITS),
        Check::figure("logit difference, six movers zero-ablated", 3.5585453510, after, 10, LOGITS),
        Check::figure("change, per cent", -13.92, 100.0 * (after - before) / before, 2, 1e-2),
    ];
    for (what, expected, got) in totals(found) {
        checks.push(Check::figure(what, expected, got, 2, SHARES));
    }
    checks.extend(copying(&found.copying));
    for (i, head) in INHIBITORS.into_iter().enumerate() {
        let names = ["attention to S2", "logit difference change", "movers' attention to S1, change"];
        let noise = [SHARES, LOGITS, SHARES];
        for (what, ((expected, got), noise)) in
            names.into_iter().zip(INHIBITION[i].into_iter().zip(found.inhibition[i].means()).zip(noise))
        {
            checks.push(Check::figure(format!("S2-inhibition of {head}: {what}"), expected, got, 3, noise));
        }
    }
    checks
}

/// Returns name, printed value and our value of each sum of a bar chart.
fn totals(found: &Measured) -> [(&'static str, f64, f64); 6] {
    let t = &found.totals;
    let [serving, opposing] = t.direct;
    let named = [
        ("direct effects, 15 heads that serve, sum", serving),
        ("direct effects, 15 heads that oppose, sum", opposing),
        ("taken over by 15 backups, sum (the notebook scales by another position's norm)", t.backup),
        ("into the movers' queries, 10 heads, sum", t.queries),
        ("into the values of L8H9, 10 heads, sum", t.direct_values),
        ("into the values of L7H4 and L7H6, 10 heads, sum", t.values),
    ];
    let mut rows = [("", 0.0, 0.0); 6];
    for (row, ((what, got), expected)) in rows.iter_mut().zip(named.into_iter().zip(TOTALS)) {
        *row = (what, expected, got);
    }
    rows
}

/// Compares copy scores. They are percentages of a number of names, so they agree if the counts of
/// names are equal. The notebook prints every score above 0. All other scores up to the end of its
/// output must therefore be 0.
fn copying(scores: &CopyScores) -> Vec<Check> {
    let half_a_name = 50.0 / scores.tokens.max(1) as f64;
    let mut checks = Vec::new();
    let last = COPYING[COPYING.len() - 1].0;
    for (sign, printed, ours, until) in [
        ("copy score", COPYING.as_slice(), &scores.positive, Some(last)),
        ("negative copy score", NEGATIVE_COPYING.as_slice(), &scores.negative, None),
    ] {
        for &(head, percent) in printed {
            let got = f64::from(ours[[head.layer, head.head]]);
            checks.push(Check {
                what: format!("{sign} of {head}, per cent"),
                expected: format!("{percent:.2}"),
                got: format!("{got:.2}"),
                verdict: Verdict::of((percent - got).abs() < half_a_name),
            });
        }
        let others = ours.indexed_iter().filter(|(place, score)| {
            let head = Head::from(*place);
            until.is_none_or(|last| head <= last) && printed.iter().all(|(of, _)| *of != head) && **score != 0.0
        });
        let others = others.count();
        checks.push(Check {
            what: format!("further heads{} with a {sign} above 0", if until.is_some() { " up to L9H7" } else { "" }),
            expected: "0".to_owned(),
            got: others.to_string(),
            verdict: Verdict::of(others == 0),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3};
    use rewire_analysis::heads::{Backup, Inhibition};

    use super::super::notebook::Totals;
    use super::*;

    /// The lines that the notebook prints, copied from the notebook.
    const PRINTED: &str = include_str!("notebook/printed.txt");

    /// Returns measurements equal to the printed figures, read from the printed lines and not from
    /// the constants above.
    fn as_printed() -> Measured {
        let after = |start: &str| -> Vec<f64> {
            let lines = PRINTED.lines().filter_map(|line| line.strip_prefix(start));
            lines.map(|rest| rest.trim().trim_end_matches('%').parse().unwrap()).collect()
        };
        let total = after("Total logit diff contribution above threshold:");
        let backup = Backup {
            ablated: Vec::new(),
            before: Array3::zeros((1, 12, 12)),
            after: Array3::zeros((1, 12, 12)),
            logit_difference_before: vec![after("Original logit diff:")[0] as f32],
            logit_difference_after: vec![after("Post ablation logit diff:")[0] as f32],
        };
        let mut copying =
            CopyScores { positive: Array2::zeros((12, 12)), negative: Array2::zeros((12, 12)), tokens: 210 };
        for line in PRINTED.lines().filter_map(|line| line.strip_prefix("Copy circuit for head ")) {
            let (head, rest) = line.split_once(" (sign=").unwrap();
            let (sign, score) = rest.split_once(") : Top 5 accuracy: ").unwrap();
            let (layer, head) = head.split_once('.').unwrap();
            let scores = if sign == "1" { &mut copying.positive } else { &mut copying.negative };
            let at = [layer.parse::<usize>().unwrap(), head.parse().unwrap()];
            scores[at] = score.trim_end_matches('%').parse().unwrap();
        }
        let [s2, change, s1] = [
            "S2I Head S2 Attention Score:",
            "Logit Diff Change After Ablation:",
            "NMHs' Mean S1 Attention Score Change:",
        ]
        .map(after);
        let inhibition = (0..2).map(|i| Inhibition {
            head: INHIBITORS[i],
            s2_attention: vec![s2[i] as f32],
            logit_difference_change: vec![change[i] as f32],
            s1_attention_change: Array2::from_elem((1, 6), s1[i] as f32),
        });
        Measured {
            logit_differences: [after("Clean logit diff:")[0], after("Corrupted logit diff:")[0]],
            backup,
            copying,
            inhibition: inhibition.collect(),
            totals: Totals {
                direct: [total[0], total[1]],
                backup: total[2],
                queries: total[3],
                direct_values: total[4],
                values: total[5],
            },
        }
    }

    fn differing(change: impl Fn(&mut Measured)) -> Vec<String> {
        let mut found = as_printed();
        change(&mut found);
        compared(&found).into_iter().filter(|c| c.verdict == Verdict::Differs).map(|c| c.what).collect()
    }

    #[test]
    fn every_figure_equals_the_printed_one() {
        assert_eq!(compared(&as_printed()).len(), 5 + 6 + 14 + 3 + 2 + 6);
        assert_eq!(differing(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn a_change_in_a_printed_digit_fails_the_check() {
        assert_eq!(differing(|f| f.logit_differences[0] += 0.001), ["clean logit difference"]);
        assert_eq!(differing(|f| f.logit_differences[1] -= 0.001), ["corrupted logit difference"]);
        assert_eq!(
            differing(|f| f.backup.logit_difference_after[0] += 0.01).len(),
            2,
            "the logit difference and its change"
        );
        assert_eq!(differing(|f| f.totals.queries += 0.01), ["into the movers' queries, 10 heads, sum"]);
        assert_eq!(differing(|f| f.totals.direct[1] -= 0.01).len(), 1);
        // One more of 210 names.
        assert_eq!(differing(|f| f.copying.positive[[9, 6]] += 100.0 / 210.0), ["copy score of L9H6, per cent"]);
        assert_eq!(differing(|f| f.copying.positive[[3, 1]] = 100.0 / 210.0).len(), 1);
        assert_eq!(differing(|f| f.copying.positive[[11, 1]] = 50.0).len(), 0, "the stored output ends before L11H1");
        assert_eq!(differing(|f| f.copying.negative[[11, 1]] = 50.0).len(), 1);
        assert_eq!(differing(|f| f.inhibition[1].s2_attention = vec![0.292]).len(), 1);
        assert_eq!(differing(|f| f.inhibition[0].s1_attention_change.fill(f32::NAN)).len(), 1);
    }
}
