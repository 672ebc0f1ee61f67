//! The figures that the notebook prints, beside ours; for Pythia-160m alone.
//!
//! Its 70 prompts cannot be drawn again: ours have templates, places and objects of their own, and, like its, no token in front. A figure
//! agrees if it is within the 95% interval of the difference of two samples of one population; what other templates change is not in it.

use burn::tensor::backend::Backend;
use rewire_analysis::{Backup, CopyNorms, Inhibition, backup_heads, copy_scores, s2_inhibition};
use rewire_model::{Transformer, TransformerConfig};
use rewire_report::{Check, Verdict};

use super::analyse::{Found, Head};
use super::data::Data;
use crate::compute::options;
use crate::model::Source;

/// The notebook's prompts.
const PRINTED_PROMPTS: f64 = 70.0;
/// The heads that the notebook finds to move names, ablates, and whose queries it patches.
const MOVERS: [Head; 6] = [(8, 1), (8, 2), (8, 10), (9, 4), (9, 6), (10, 7)];
/// Copy scores that it prints, in per cent; of the list's end it prints nothing.
const COPYING: [(Head, f64); 14] = [
    ((4, 10), 8.571),
    ((5, 0), 100.0),
    ((5, 9), 23.333),
    ((6, 6), 2.857),
    ((7, 8), 33.810),
    ((7, 11), 0.476),
    ((8, 1), 39.524),
    ((8, 2), 98.571),
    ((8, 8), 2.857),
    ((8, 10), 100.0),
    ((9, 2), 0.952),
    ((9, 4), 20.952),
    ((9, 6), 6.190),
    ((9, 7), 2.381),
];
/// The same of heads turned round.
const NEGATIVE_COPYING: [(Head, f64); 3] = [((6, 5), 0.476), ((8, 9), 100.0), ((9, 5), 20.476)];
/// S2-inhibition: attention to S2, change of the logit difference, change of the movers' attention to S1.
const INHIBITION: [(Head, [f64; 3]); 2] = [((7, 4), [0.798, -4.391, 0.269]), ((7, 6), [0.291, -2.280, 0.152])];

/// Half the width of a 95% interval, in standard errors.
const SURE: f64 = 1.96;

/// Whether this is the notebook's model: Pythia-160m, trained to its end, with processed weights.
pub(super) fn is_the_notebooks(source: &Source) -> bool {
    let (name, revision) = source.name.split_once('@').unwrap_or((&source.name, "main"));
    let TransformerConfig { n_layers, n_heads, d_model, parallel_block, .. } = source.config;
    name.trim_end_matches('/').rsplit('/').next() == Some("pythia-160m")
        && ["main", "step143000"].contains(&revision)
        && (n_layers, n_heads, d_model, parallel_block) == (12, 12, 768, true)
        && source.is_processed()
}

/// Why the notebook's figures are not set beside ours although this is its model, if they are not.
pub(super) fn not_compared(source: &Source, data: &Data) -> Option<&'static str> {
    (is_the_notebooks(source) && data.has_bos).then_some(
        "The figures that the notebook prints are not compared: its prompts have no BOS in front, and these have one. Give \
         --bos none to compare them.",
    )
}

/// The checks, if this is the notebook's model and these are prompts like its own.
pub(super) fn checks<B: Backend>(source: &Source, model: &Transformer<B>, found: &Found) -> anyhow::Result<Vec<Check>> {
    if !is_the_notebooks(source) || not_compared(source, &found.data).is_some() {
        return Ok(Vec::new());
    }
    let data = &found.data;
    let options = options(model, data.pairs.width());
    let backup = backup_heads(model, &data.pairs, &MOVERS, &options)?;
    let copying = copy_scores(model, &data.pairs.clean(), &data.names(), CopyNorms::Without, &options)?;
    let heads = INHIBITION.map(|(head, _)| head);
    let inhibition = s2_inhibition(model, &data.pairs, &data.roles, &heads, &MOVERS, &options)?;
    let scores = |negative: bool, (layer, head): Head| {
        let of = if negative { &copying.negative } else { &copying.positive };
        f64::from(of[[layer, head]])
    };
    Ok(compared(&found.parts.baselines.clean, &found.parts.baselines.corrupted, &backup, scores, &inhibition))
}

fn compared(
    clean: &[f32],
    corrupted: &[f32],
    backup: &Backup,
    score: impl Fn(bool, Head) -> f64,
    inhibition: &[Inhibition],
) -> Vec<Check> {
    let mut checks = vec![
        mean("clean logit difference", 4.1341, 4, clean),
        mean("corrupted logit difference", -4.0757, 4, corrupted),
        mean("logit difference, six movers zero-ablated", 3.5585, 4, &backup.logit_difference_after),
    ];
    let [before, after] = backup.logit_differences();
    let changes: Vec<f32> =
        backup.logit_difference_after.iter().zip(&backup.logit_difference_before).map(|(a, b)| a - b).collect();
    let percent = 100.0 * (after - before) / before;
    let reach = 100.0 * interval(&changes) / before.abs();
    checks.push(within("its change, per cent", -13.92, percent, reach, 2));
    let prompts = clean.len() as f64;
    for (negative, printed) in [(false, COPYING.as_slice()), (true, NEGATIVE_COPYING.as_slice())] {
        for &(head, percent) in printed {
            let sign = if negative { "negative copy score" } else { "copy score" };
            let what = format!("{sign} of {}.{}, per cent", head.0, head.1);
            checks.push(within(
                &what,
                percent,
                score(negative, head),
                share_interval(percent, score(negative, head), prompts),
                2,
            ));
        }
    }
    for (found, (head, printed)) in inhibition.iter().zip(INHIBITION) {
        let of_movers: Vec<f32> =
            found.s1_attention_change.rows().into_iter().map(|row| row.mean().unwrap_or(f32::NAN)).collect();
        let name = format!("S2-inhibition of {}.{}", head.0, head.1);
        checks.push(mean(&format!("{name}: attention to S2"), printed[0], 3, &found.s2_attention));
        checks.push(mean(&format!("{name}: logit difference change"), printed[1], 3, &found.logit_difference_change));
        checks.push(mean(&format!("{name}: movers' attention to S1, change"), printed[2], 3, &of_movers));
    }
    checks
}

/// Half the 95% interval of the difference of two means, of these numbers and of 70 like them.
fn interval(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    SURE * (variance * (1.0 / n + 1.0 / PRINTED_PROMPTS)).sqrt()
}

/// The same of two shares in per cent, with one prompt of each kind added to each sample (Agresti and Caffo 2000), as if the names of one
/// prompt were one.
fn share_interval(printed: f64, ours: f64, prompts: f64) -> f64 {
    let variance = |percent: f64, n: f64| {
        let share = (percent / 100.0 * n + 1.0) / (n + 2.0);
        share * (1.0 - share) / (n + 2.0)
    };
    100.0 * SURE * (variance(printed, PRINTED_PROMPTS) + variance(ours, prompts)).sqrt()
}

/// A printed mean beside the mean of ours.
fn mean(what: &str, expected: f64, digits: usize, ours: &[f32]) -> Check {
    let got = ours.iter().map(|&v| f64::from(v)).sum::<f64>() / ours.len() as f64;
    within(what, expected, got, interval(ours), digits)
}

fn within(what: &str, expected: f64, got: f64, reach: f64, digits: usize) -> Check {
    let agrees = (expected - got).abs() <= reach + 0.5 * 10_f64.powi(-(digits as i32));
    Check {
        what: what.to_owned(),
        expected: format!("{expected:.digits$} ± {reach:.digits$}"),
        got: format!("{got:.digits$}"),
        verdict: if agrees { Verdict::Agrees } else { Verdict::Differs },
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3};

    use super::*;

    fn around(mean: f64) -> Vec<f32> {
        (0..70).map(|i| (mean + if i % 2 == 0 { 0.5 } else { -0.5 }) as f32).collect()
    }

    fn as_printed(change: impl Fn(&mut Vec<f32>, &mut Backup, &mut Vec<Inhibition>)) -> Vec<Check> {
        let mut clean = around(4.1341);
        let zeros = Array3::zeros((70, 12, 12));
        let mut backup = Backup {
            ablated: MOVERS.to_vec(),
            before: zeros.clone(),
            after: zeros,
            logit_difference_before: around(4.1341),
            logit_difference_after: around(3.5585),
        };
        let of = |(head, printed): (Head, [f64; 3])| Inhibition {
            head,
            s2_attention: vec![printed[0] as f32; 70],
            logit_difference_change: vec![printed[1] as f32; 70],
            s1_attention_change: Array2::from_elem((70, 6), printed[2] as f32),
        };
        let mut inhibition = INHIBITION.map(of).to_vec();
        change(&mut clean, &mut backup, &mut inhibition);
        let score = |negative: bool, head: Head| {
            let printed = if negative { NEGATIVE_COPYING.as_slice() } else { COPYING.as_slice() };
            printed.iter().find(|(of, _)| *of == head).map_or(0.0, |(_, score)| *score)
        };
        compared(&clean, &around(-4.0757), &backup, score, &inhibition)
    }

    #[test]
    fn what_is_as_printed_agrees_and_what_is_not_differs() {
        let all = as_printed(|_, _, _| {});
        assert_eq!(all.len(), 4 + 17 + 6);
        for check in &all {
            assert_eq!(check.verdict, Verdict::Agrees, "{check:?}");
        }
        let differing = |checks: Vec<Check>| checks.iter().filter(|c| c.verdict == Verdict::Differs).count();
        assert_eq!(differing(as_printed(|clean, _, _| *clean = around(4.4))), 1);
        assert_eq!(differing(as_printed(|_, _, found| found[1].s2_attention = vec![0.3; 70])), 1);
        assert_eq!(differing(as_printed(|_, backup, _| backup.logit_difference_after = around(3.2))), 2);
        assert_eq!(differing(as_printed(|_, _, found| found[0].s1_attention_change.fill(f32::NAN))), 1);
    }

    #[test]
    fn intervals_narrow_with_the_prompts() {
        assert!(share_interval(50.0, 50.0, 1000.0) < share_interval(50.0, 50.0, 70.0));
        // 100% of a sample is no certainty.
        assert!(share_interval(100.0, 100.0, 70.0) > 1.0);
        assert!((interval(&around(1.0)) - 1.96 * (0.5 * 0.5 * 70.0 / 69.0 * 2.0 / 70.0_f64).sqrt()).abs() < 1e-6);
    }
}
