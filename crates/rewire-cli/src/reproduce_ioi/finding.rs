//! The finding of the study: the heads that matter, how sure their effects are, and how far
//! attribution is from the exact effects.

use rewire_analysis::stats::{Agreement, Bootstrap, IntervalKind};
use rewire_report::charts::Chart;
use rewire_report::names::head_name;
use rewire_studies::ioi::HeadEffect;

use super::shown::{Found, Set};
use crate::finding::{Bar, Finding, bars};
use crate::in_words::{Estimated, how_far, percent, right_on, standing_out};
use rewire_report::names::counted;

/// Number of heads in the figure.
const DRAWN: usize = 8;

/// Returns the finding on the larger set of prompts.
pub(super) fn finding(found: &Found) -> Finding {
    let set = found.sets.iter().fold(&found.sets[0], |best, set| match set.pairs.len() > best.pairs.len() {
        true => set,
        false => best,
    });
    Finding { sentences: sentences(set, &found.demo.agreements), figure: figure(set) }
}

/// Returns the sentences: whether the model does the task if it does not, the heads that stand out,
/// how sure the largest effect is, and how far attribution is from the exact effects. `agreements`
/// are over the demo's prompts, one per kind of node.
fn sentences(set: &Set, agreements: &[Agreement]) -> Vec<String> {
    let heads = set.heads(0);
    let [clean, corrupted] = set.baselines();
    let not_the_task = (clean <= corrupted).then(|| {
        format!(
            "The model does not do this task, and the shares below say nothing about it: the logit difference is \
             {clean:.4} on clean prompts and {corrupted:.4} on corrupted prompts."
        )
    });
    let effects: Vec<_> = heads.iter().map(|h| (head_name(h.layer, h.head), h.exact)).collect();
    let when = "when the corrupted run takes one head's output from the clean run";
    let which = standing_out(&effects, ["head", "heads"], when);
    let estimated =
        |h: &HeadEffect| Estimated { name: head_name(h.layer, h.head), exact: h.exact, estimate: h.attribution };
    let all: Vec<Estimated> = heads.iter().map(estimated).collect();
    let far = how_far("Attribution, the cheap estimate,", ["head", "heads"], &all);
    let far = format!("{far}{}.", worst_kind(agreements).unwrap_or_default());
    not_the_task.into_iter().chain([which, how_sure(set, heads.first()), far]).collect()
}

/// Returns the interval of the largest effect, and on how many clean prompts the model is right.
fn how_sure(set: &Set, largest: Option<&HeadEffect>) -> String {
    let prompts = counted(set.pairs.len(), &format!("{} prompt", set.set));
    let right = format!("the model is {}", right_on(set.right(), "clean prompt"));
    let Some(HeadEffect { layer, head, .. }) = largest else { return format!("In all, {right}.") };
    let effects = &set.outcomes[0][0].effects[0];
    let ends = set.certainty[0].ends(effects, &[vec![*layer, *head]]);
    let kind = IntervalKind::of(&set.pairs.clusters(), Bootstrap::default());
    let name = head_name(*layer, *head);
    match (ends.as_deref(), kind) {
        (Some([[low, high]]), Some(kind)) => format!(
            "The effect of {name} lies between {} and {} ({kind}, {prompts}), and {right}.",
            percent(*low),
            percent(*high)
        ),
        _ => format!("The effect of {name} has no interval: {prompts} cannot show how it varies; {right}."),
    }
}

/// Returns the kind of node for which attribution agrees least with the exact effects.
fn worst_kind(agreements: &[Agreement]) -> Option<String> {
    let with = agreements.iter().filter_map(|agreement| Some((agreement.kind, agreement.pearson?)));
    let (kind, r) = with.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let kinds = counted(agreements.len(), "kind");
    Some(format!("; of {kinds} of node on the demo's prompts it is worst for {kind} (Pearson correlation {r:.3})"))
}

/// Returns bars of the largest effects, with their intervals, and of the attributions.
fn figure(set: &Set) -> Option<Chart> {
    let heads: Vec<HeadEffect> = set.heads(0).into_iter().filter(|h| h.exact != 0.0).take(DRAWN).collect();
    let places: Vec<Vec<usize>> = heads.iter().map(|h| vec![h.layer, h.head]).collect();
    let ends = set.certainty[0].ends(&set.outcomes[0][0].effects[0], &places);
    let bar = |(i, h): (usize, &HeadEffect)| Bar {
        name: head_name(h.layer, h.head),
        exact: h.exact,
        ends: ends.as_ref().map(|ends| ends[i]),
        estimate: Some(h.attribution),
    };
    let nodes: Vec<Bar> = heads.iter().enumerate().map(bar).collect();
    bars(
        &format!("The heads of largest effect on {}", counted(set.pairs.len(), &format!("{} prompt", set.set))),
        &nodes,
        ["exact effect (with its interval)", "attribution"],
        ["head", "share of the clean-corrupted difference"],
    )
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rewire_analysis::node::NodeKind;
    use rewire_analysis::run::{Direction, Scale};
    use rewire_analysis::{Baselines, Effects, Method, Outcome};
    use rewire_studies::ioi::{Findings, HEADS, Noising};
    use rewire_tasks::{PromptPair, PromptPairs};

    use super::*;

    fn outcome(prompts: usize, [clean, corrupted]: [f32; 2], heads: &[f32]) -> Outcome {
        // The prompts differ a little, so that there is an interval.
        let value = |(prompt, _, head): (usize, usize, usize)| heads[head] * (1.0 + 0.01 * (prompt % 2) as f32);
        let values = Array3::from_shape_fn((prompts, 1, heads.len()), value).into_dyn();
        Outcome {
            method: Method::ActivationPatching,
            direction: Direction::Denoising,
            scale: Scale::Normalized,
            metric: "logit-diff",
            baselines: Baselines { clean: vec![clean; prompts], corrupted: vec![corrupted; prompts] },
            vanished: Vec::new(),
            effects: vec![Effects::new(HEADS, values, Vec::new())],
        }
    }

    /// Returns a set of prompts with these exact effects and attributions of the heads of one
    /// layer.
    fn set(prompts: u32, logits: [f32; 2], exact: &[f32], attribution: &[f32]) -> Set {
        let pair = |i: u32| PromptPair {
            clean: vec![10 + 2 * i],
            corrupted: vec![11 + 2 * i],
            answers: vec![0],
            wrong_answers: vec![1],
        };
        let pairs = PromptPairs::new((0..prompts).map(pair).collect()).unwrap();
        let outcomes = || [exact, attribution].map(|heads| outcome(prompts as usize, logits, heads));
        let found =
            Findings { set: "generated", pairs, outcomes: vec![outcomes(), outcomes()], noising: Noising::Apart };
        Set::new(found, 0)
    }

    fn agreement(kind: NodeKind, exact: &[f32], estimate: &[f32]) -> Agreement {
        let [exact, estimate] = [exact, estimate].map(|heads| {
            let effects = outcome(1, [1.0, 0.0], heads).effects.remove(0);
            Effects { kind, ..effects }
        });
        Agreement::new(&exact, &estimate, 10).unwrap()
    }

    #[test]
    fn the_finding_names_heads_intervals_right_answers_and_errors() {
        let set = set(10, [3.0, -3.0], &[0.4, -0.1, 0.01], &[0.41, -0.09, 0.0]);
        let agreements = [agreement(HEADS, &[0.4, -0.1, 0.01], &[0.4, -0.1, 0.01])];
        let found = sentences(&set, &agreements);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("2 of 3 heads change the logit difference by 5% or more"), "{}", found[0]);
        assert!(found[0].ends_with("from the clean run: L0H0 (+40%) and L0H1 (-10%)."), "{}", found[0]);
        assert_eq!(
            found[1],
            "The effect of L0H0 lies between +40% and +40% (95% interval, 10 generated prompts), and the model is \
             right on 10 of 10 clean prompts."
        );
        assert!(found[2].contains("is close to the exact effects of 3 heads"), "{}", found[2]);
        assert!(
            found[2].ends_with(
                "of 1 kind of node on the demo's prompts it is worst for head_z (Pearson correlation 1.000)."
            ),
            "{}",
            found[2]
        );
        assert!(figure(&set).is_some());
    }

    #[test]
    fn a_study_in_which_no_head_matters_says_so() {
        let set = set(1, [3.0, -3.0], &[0.0, 0.0], &[0.0, 0.0]);
        let found = sentences(&set, &[]);
        assert!(found[0].starts_with("No head changes"), "{}", found[0]);
        assert!(found[1].contains("has no interval: 1 generated prompt cannot show"), "{}", found[1]);
        assert!(found[1].ends_with("right on 1 of 1 clean prompt."), "{}", found[1]);
        assert!(figure(&set).is_none(), "there is nothing to draw");
    }

    #[test]
    fn bad_attribution_and_a_model_that_fails_are_named() {
        let set = set(10, [-1.0, 1.0], &[0.4, 0.1, 0.0], &[-0.4, 0.1, 0.2]);
        let found = sentences(&set, &[]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("The model does not do this task"), "{}", found[0]);
        assert!(found[2].ends_with("right on 0 of 10 clean prompts."), "{}", found[2]);
        assert!(found[3].contains("does not follow") && found[3].contains("at L0H0 and L0H2"), "{}", found[3]);
    }
}
