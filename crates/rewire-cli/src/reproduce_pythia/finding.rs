//! The finding of the study: the circuit's heads, how much of the behavior they carry on prompts
//! that did not choose them, and how far direct logit attribution is from the exact direct effects.

use ndarray::Array2;
use rewire_analysis::stats::Proportion;
use rewire_circuits::{Carried, KEPT, LEFT, mean_by_head};
use rewire_hooks::Head;
use rewire_report::charts::Chart;
use rewire_studies::pythia::{Circuit, Member};

use super::sentences::not_the_task;
use super::shown::{Found, Step};
use crate::finding::{Bar, Finding, bars};
use crate::in_words::{Estimated, how_far, list, right_on, scaled};
use rewire_report::names::counted;

/// Most heads in the figure.
const DRAWN: usize = 12;

/// Returns the finding.
pub(super) fn finding(found: &Found, threshold: f32) -> Finding {
    let results = Results {
        circuit: &found.circuit,
        right: found.right_answers(),
        direct: &found.direct.effects(),
        attribution: &mean_by_head(&found.attribution, 0),
        threshold,
    };
    Finding { sentences: not_the_task(found).into_iter().chain(sentences(&results)).collect(), figure: figure(found) }
}

/// The results that the sentences are about.
struct Results<'a> {
    circuit: &'a Circuit,
    right: Proportion,
    /// Exact direct effects on the logits, `[layer, head]`: below 0 serves the behavior.
    direct: &'a Array2<f32>,
    /// Direct logit attribution, `[layer, head]`, in logits: above 0 serves the behavior.
    attribution: &'a Array2<f32>,
    /// Smallest absolute effect of a head that counts in a step.
    threshold: f32,
}

/// Returns three sentences: the circuit's heads, the shares that they carry, and the errors of
/// direct logit attribution.
fn sentences(results: &Results) -> [String; 3] {
    let estimated = |((layer, head), effect): ((usize, usize), &f32)| Estimated {
        name: Head::new(layer, head).to_string(),
        exact: 0.0 - effect,
        estimate: results.attribution[[layer, head]],
    };
    let all = scaled(results.direct.indexed_iter().map(estimated).collect());
    let method = "For effects on the logits directly, direct logit attribution (no patching; scaled by least squares)";
    let far = format!("{}.", how_far(method, ["head", "heads"], &all));
    [which(results), carries(results.circuit, results.right), far]
}

/// Names the circuit's strongest heads.
fn which(results: &Results) -> String {
    let circuit = results.circuit;
    let named = |member: &Member| {
        let role = member.roles.first().map_or("other", |(role, _)| role.name());
        format!("{} ({role}, {:.0}%)", member.head, 100.0 * member.strength)
    };
    let heads = list(&circuit.members.iter().map(named).collect::<Vec<_>>());
    let of = format!("{} of {}", circuit.members.len(), counted(results.direct.len(), "head"));
    match circuit.with_roles.is_empty() {
        true => format!(
            "No head has an effect of {}% or more of the clean-corrupted difference in any step; the circuit is the \
             {of} that come nearest, strongest first: {heads}.",
            100.0 * results.threshold
        ),
        false => format!(
            "The circuit has {of}; by the largest effect in any step, as a share of the clean-corrupted difference, \
             the strongest are {heads}."
        ),
    }
}

/// Returns the shares that the circuit keeps and leaves, and on how many prompts the model is
/// right.
fn carries(circuit: &Circuit, right: Proportion) -> String {
    let Carried { shares, intervals: [kept, left], .. } = &circuit.judged;
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let ends = |[low, high]: [f64; 2]| format!("95% interval {} to {}", percent(low), percent(high));
    let random = &circuit.random.sets;
    let by_chance = match random.len() {
        0 => String::new(),
        n => format!(
            "; {n} sets of as many random heads: {} on average",
            percent(random.iter().map(|set| set.shares.kept).sum::<f64>() / n as f64)
        ),
    };
    let bars = if shares.meet_the_bars() { "meets" } else { "does not meet" };
    let bounds = |[low, high]: [f64; 2]| format!("{:.0}% to {:.0}%", 100.0 * low, 100.0 * high);
    format!(
        "Alone it keeps {} of the logit difference ({}{by_chance}), and without it {} is left ({}), on {} prompts that \
         did not choose it: it {bars} the bars ({} kept, {} left); the model is {}.",
        percent(shares.kept),
        ends(*kept),
        percent(shares.left),
        ends(*left),
        circuit.prompts[1],
        bounds(KEPT),
        bounds(LEFT),
        right_on(right, "clean prompt")
    )
}

/// Returns bars of the largest effect of each of the circuit's strongest heads, above 0 if it
/// serves the behavior.
fn figure(found: &Found) -> Option<Chart> {
    let bar = |member: &Member| {
        let Head { layer, head } = member.head;
        let size = |step: &Step| step.effects()[[layer, head]].abs();
        let (_, step) = found.steps.iter().max_by(|(_, a), (_, b)| size(a).total_cmp(&size(b)))?;
        let ends = step.certainty.ends(&step.outcome.effects[0], &[vec![layer, head]]);
        Some(Bar {
            name: member.head.to_string(),
            exact: 0.0 - step.effects()[[layer, head]],
            ends: ends.map(|ends| [0.0 - ends[0][1], 0.0 - ends[0][0]]),
            estimate: None,
        })
    };
    let nodes: Vec<Bar> = found.circuit.members.iter().take(DRAWN).filter_map(bar).collect();
    bars(
        "The circuit's strongest heads: how much of the behavior goes through them",
        &nodes,
        ["support in the step with the largest effect", ""],
        ["head", "share of the clean-corrupted difference"],
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ndarray::arr2;
    use rewire_circuits::{HeadRole, Random, Shares};

    use super::*;

    fn carried(kept: f64, left: f64) -> Carried {
        let intervals = [[kept - 0.05, kept + 0.05], [left - 0.05, left + 0.05]];
        Carried { heads: [Head::new(0, 1)].into(), shares: Shares { kept, left }, intervals, stability: 1.0 }
    }

    fn circuit(roles: &[(Head, HeadRole, f32)], kept: f64, left: f64) -> Circuit {
        let with_roles: BTreeMap<_, _> =
            roles.iter().map(|(head, role, effect)| (*head, vec![(*role, *effect)])).collect();
        let member = |head: Head| Member {
            head,
            strength: 0.5,
            roles: with_roles.get(&head).cloned().unwrap_or_else(|| vec![(HeadRole::Completing, 0.5)]),
        };
        Circuit {
            members: vec![member(Head::new(0, 1))],
            curve: Vec::new(),
            on_choosing: carried(kept, left),
            judged: carried(kept, left),
            random: Random { from: "all heads", sets: vec![carried(0.1, 0.9), carried(0.3, 0.9)] },
            prompts: [600, 500],
            reference: BTreeMap::new(),
            with_roles,
        }
    }

    fn says(circuit: &Circuit, attribution: [f32; 4]) -> [String; 3] {
        sentences(&Results {
            circuit,
            right: Proportion { successes: 69, n: 70 },
            direct: &arr2(&[[0.0, -0.5], [-0.1, 0.2]]),
            attribution: &arr2(&[[attribution[0], attribution[1]], [attribution[2], attribution[3]]]),
            threshold: 0.02,
        })
    }

    #[test]
    fn the_finding_names_the_circuit_its_shares_and_right_answers() {
        let circuit = circuit(&[(Head::new(0, 1), HeadRole::NameMover, -0.5)], 0.95, 0.05);
        // In logits, the attribution is four times the support.
        let [which, carries, far] = says(&circuit, [0.0, 2.0, 0.4, -0.8]);
        assert!(which.starts_with("The circuit has 1 of 4 heads;"), "{which}");
        assert!(which.ends_with("the strongest are L0H1 (name mover, 50%)."), "{which}");
        assert_eq!(
            carries,
            "Alone it keeps 95.0% of the logit difference (95% interval 90.0% to 100.0%; 2 sets of as many random \
             heads: 20.0% on average), and without it 5.0% is left (95% interval 0.0% to 10.0%), on 500 prompts that \
             did not choose it: it meets the bars (80% to 120% kept, -20% to 20% left); the model is right on 69 of \
             70 clean prompts."
        );
        assert!(far.contains("is close to the exact effects of 4 heads (Pearson correlation 1.000)"), "{far}");
    }

    #[test]
    fn a_circuit_without_a_head_beyond_the_threshold_is_named_as_such() {
        let [which, carries, _] = says(&circuit(&[], 0.5, 0.05), [0.0; 4]);
        assert!(which.starts_with("No head has an effect of 2% or more"), "{which}");
        assert!(which.ends_with("strongest first: L0H1 (completing, 50%)."), "{which}");
        assert!(carries.contains("it does not meet the bars"), "{carries}");
    }

    #[test]
    fn attribution_that_does_not_follow_the_direct_effects_is_named() {
        let circuit = circuit(&[(Head::new(0, 1), HeadRole::NameMover, -0.5)], 0.95, 0.05);
        let [.., far] = says(&circuit, [1.0, 0.0, 0.0, 1.0]);
        assert!(far.contains("does not follow") || far.contains("roughly follows"), "{far}");
        assert!(far.contains("off by 5% or more at L0H1"), "{far}");
    }
}
