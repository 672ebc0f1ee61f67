//! Warnings about the baselines of a sweep: a clean metric that is not above the corrupted one, a
//! difference between the two that is small beside its spread, and logits before a bound on them.

use rewire_analysis::heads::LOGIT_DIFF_BEFORE_CAP;
use rewire_analysis::stats::{Span, SpanVerdict};
use rewire_analysis::{Baselines, Outcome, run::Scale};

/// Most prompts that a warning names.
const NAMED: usize = 5;

/// Returns the warnings about the baselines of an outcome, one line each. There are none for KL,
/// which is 0 on the clean prompts by definition.
pub(super) fn of_baselines(outcome: &Outcome) -> Vec<String> {
    if outcome.metric == "kl" {
        return Vec::new();
    }
    let span = outcome.baselines.span();
    // On the normalized scale, the analysis warns of a small span itself.
    let is_known = span.mean <= 0.0 || outcome.scale == Scale::Normalized;
    let is_small = if is_known { None } else { small_span(outcome.metric, span) };
    not_above(outcome.metric, &outcome.baselines).into_iter().chain(is_small).collect()
}

/// Returns a warning if logit attribution gives logits before the model's bound on them.
pub(super) fn of_cap(outcome: &Outcome) -> Option<String> {
    (outcome.metric == LOGIT_DIFF_BEFORE_CAP).then(|| {
        "the model bounds its logits (`final_logit_softcapping`); contributions and baselines are logits before this \
         bound, because only these are sums of contributions"
            .to_owned()
    })
}

/// Returns a warning if the mean metric is not above the mean on the corrupted prompts, or if the
/// metric of a clean prompt is below that of its corrupted prompt.
fn not_above(metric: &str, baselines: &Baselines) -> Option<String> {
    let [clean, corrupted] = baselines.means();
    let n = baselines.clean.len();
    let pairs = || baselines.clean.iter().zip(&baselines.corrupted).enumerate();
    let advice = "check that the answers are right for the clean prompts";
    if clean <= corrupted {
        let not_above = pairs().filter(|(_, (clean, corrupted))| clean <= corrupted).count();
        return Some(format!(
            "the metric {metric} is not above its corrupted value on the clean prompts: mean {clean:.4} clean and \
             {corrupted:.4} corrupted, not above on {not_above} of {n} pairs; {advice}"
        ));
    }
    let below: Vec<usize> = pairs().filter(|(_, (clean, corrupted))| clean < corrupted).map(|(pair, _)| pair).collect();
    if below.is_empty() {
        return None;
    }
    let named = below.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = if below.len() > NAMED { ", .." } else { "" };
    Some(format!(
        "the metric {metric} is lower on the clean than on the corrupted prompt in {} of {n} pairs ({named}{more}, \
         counted from 0); {advice}",
        below.len()
    ))
}

/// Returns a warning if the clean minus the corrupted metric is small beside its spread or beside
/// the metric.
fn small_span(metric: &str, span: Span) -> Option<String> {
    let Span { mean, sd, standard_error, size, prompts } = span;
    let spread = match (sd, standard_error) {
        (Some(sd), Some(error)) => {
            format!(", standard error {error:.4}, standard deviation {sd:.4} over {prompts} pairs")
        }
        _ => String::new(),
    };
    let why = match span.verdict() {
        SpanVerdict::Sound => return None,
        SpanVerdict::WithinItsSpread => {
            "it is less than two standard errors from 0, and the effects may be noise; use more pairs".to_owned()
        }
        SpanVerdict::SmallBesideTheMetric => {
            format!("it is small beside the metric's mean size of {size:.4}, and the two runs hardly differ")
        }
    };
    Some(format!("the clean minus the corrupted {metric} is only {mean:.4}{spread}: {why}"))
}

#[cfg(test)]
mod tests {
    use rewire_analysis::Method;
    use rewire_analysis::run::Direction;

    use super::*;

    fn doubts(metric: &'static str, scale: Scale, clean: &[f32], corrupted: &[f32]) -> Vec<String> {
        let outcome = Outcome {
            method: Method::ActivationPatching,
            direction: Direction::Denoising,
            scale,
            metric,
            baselines: Baselines { clean: clean.to_vec(), corrupted: corrupted.to_vec() },
            vanished: vec![],
            effects: vec![],
        };
        of_baselines(&outcome)
    }

    #[test]
    fn a_clean_metric_that_is_not_above_is_doubtful_on_every_scale() {
        for scale in [Scale::Metric, Scale::Normalized] {
            let found = doubts("logit-diff", scale, &[-3.0, 1.0], &[3.0, 0.0]);
            assert_eq!(found.len(), 1, "{found:?}");
            let doubt = &found[0];
            assert!(doubt.contains("mean -1.0000 clean and 1.5000 corrupted, not above on 1 of 2 pairs"), "{doubt}");
        }
        let same = doubts("logit-diff", Scale::Metric, &[2.0], &[2.0]);
        assert!(same[0].contains("not above on 1 of 1 pairs"), "{same:?}");
        assert_eq!(doubts("kl", Scale::Metric, &[0.0], &[1.0]), Vec::<String>::new());
    }

    #[test]
    fn single_exchanged_pairs_are_named() {
        let found = doubts("logit-diff", Scale::Normalized, &[5.0, 1.0, 5.0], &[0.0, 1.5, 0.0]);
        assert!(found.len() == 1 && found[0].contains("in 1 of 3 pairs (1, counted from 0)"), "{found:?}");
    }

    #[test]
    fn a_small_span_is_doubtful_on_the_scale_of_the_metric_too() {
        let found = doubts("logit-diff", Scale::Metric, &[1.0, 3.0], &[0.9, 1.0]);
        assert!(found.len() == 1 && found[0].contains("only 1.0500, standard error 0.9500"), "{found:?}");
        assert!(found[0].contains("less than two standard errors"), "{found:?}");
        assert_eq!(doubts("logit-diff", Scale::Metric, &[3.0, 3.1], &[1.0, 1.0]), Vec::<String>::new());
    }
}
