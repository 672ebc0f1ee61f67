//! The finding of the study: the heads that matter, how sure that is, and how far integrated
//! gradients are from activation patching.

use rewire_analysis::stats::{Proportion, pearson};
use rewire_hooks::Head;
use rewire_report::charts::Chart;
use rewire_studies::integrated_gradients::{Averaged, Compared, Found, Mean, flat, shares};

use crate::finding::{Bar, Finding, bars};
use crate::in_words::{Estimated, how_far, right_on, standing_out};
use rewire_report::names::counted;

/// Number of heads in the figure.
const DRAWN: usize = 8;
/// Index of the integral among the figures of [`Averaged::means`].
const INTEGRAL: usize = 1;

/// Returns the finding.
pub(super) fn finding(found: &Found) -> Finding {
    let compared = &found.compared;
    let (right, prompts) = match &found.study {
        Some(study) => (study.whole.said, "generated prompt"),
        None => (Proportion::of([compared.logit_differences()[0] > 0.0]), "clean prompt"),
    };
    let results = Results {
        logit_differences: compared.logit_differences(),
        heads: heads(compared),
        neurons: neurons(compared),
        averaged: found.averaged.as_ref().map(OverPairs::new),
        right: right_on(right, prompts),
    };
    Finding { sentences: sentences(&results), figure: figure(compared) }
}

/// The results that the sentences are about.
struct Results {
    /// The clean and the corrupted logit difference of the pair.
    logit_differences: [f64; 2],
    /// Every head: patching, and integrated gradients to the corrupted baseline.
    heads: Vec<Estimated>,
    /// Pearson's correlation of both over all neurons, and the number of neurons.
    neurons: (Option<f64>, usize),
    averaged: Option<OverPairs>,
    /// On how many prompts the model is right, in words.
    right: String,
}

/// Correlations of integrated gradients with patching over generated pairs.
struct OverPairs {
    n: usize,
    /// Mean correlation over neurons, and over heads.
    means: [Option<Mean>; 2],
}

impl OverPairs {
    fn new(averaged: &Averaged) -> Self {
        Self { n: averaged.n, means: [0, 1].map(|kind| averaged.means(kind).map(|means| means[INTEGRAL])) }
    }
}

/// Returns the sentences: whether the model does the task if it does not, the heads that stand out,
/// how sure that is, and the errors of integrated gradients.
fn sentences(results: &Results) -> Vec<String> {
    let [clean, corrupted] = results.logit_differences;
    let not_the_task = (clean <= corrupted).then(|| {
        format!(
            "The model does not do this task, and the shares below say nothing about it: the logit difference is \
             {clean:.4} on the clean prompt and {corrupted:.4} on the corrupted prompt."
        )
    });
    let effects: Vec<_> = results.heads.iter().map(|head| (head.name.clone(), head.exact)).collect();
    let which =
        standing_out(&effects, ["head", "heads"], "when the clean run takes one head's output from the corrupted run");
    let far = how_far("Integrated gradients, one line for all heads of a layer,", ["head", "heads"], &results.heads);
    let of_neurons = match results.neurons {
        (Some(r), n) => format!("over {} the Pearson correlation is {r:.3}", counted(n, "neuron")),
        (None, n) => format!("over {} there is no correlation", counted(n, "neuron")),
    };
    not_the_task.into_iter().chain([which, how_sure(results), format!("{far}; {of_neurons}.")]).collect()
}

/// Returns what is known beyond the one pair of prompts.
fn how_sure(results: &Results) -> String {
    let one = "These effects are from one pair of prompts and have no interval";
    let right = format!("the model is {}", results.right);
    let Some(OverPairs { n, means: [neurons, heads] }) = &results.averaged else { return format!("{one}; {right}.") };
    let text = |mean: &Option<Mean>| {
        let Some(mean) = mean else { return "none".to_owned() };
        let what = if mean.is_interval { "95% interval" } else { "range" };
        let [low, high] = mean.ends;
        format!("{:.3} ({what} {low:.3} to {high:.3})", mean.mean)
    };
    format!(
        "{one}; over {}, the mean Pearson correlation of integrated gradients with activation patching is {} for heads \
         and {} for neurons; {right}.",
        counted(*n, "generated pair"),
        text(heads),
        text(neurons)
    )
}

/// Returns every head with patching and integrated gradients, largest effect first.
fn heads(compared: &Compared) -> Vec<Estimated> {
    let estimated = |head: Head| Estimated {
        name: head.to_string(),
        exact: compared.exact_of(head),
        estimate: compared.integrated_of(head),
    };
    compared.heads_by_effect().into_iter().map(estimated).collect()
}

/// Returns the correlation of patching with integrated gradients to the corrupted baseline over all
/// neurons, and their number.
fn neurons(compared: &Compared) -> (Option<f64>, usize) {
    let exact = flat(&compared.exact.effects[0]);
    let integrated = shares(&compared.lines[1].integrated.outcome.effects[0], &compared.logit_differences());
    let n = exact.len();
    (pearson(exact.into_iter().zip(integrated)), n)
}

/// Returns bars of patching and of integrated gradients for the heads of largest effect.
fn figure(compared: &Compared) -> Option<Chart> {
    let bar = |head: Estimated| Bar { name: head.name, exact: head.exact, ends: None, estimate: Some(head.estimate) };
    let nodes: Vec<Bar> = heads(compared).into_iter().filter(|head| head.exact != 0.0).take(DRAWN).map(bar).collect();
    bars(
        "The heads of largest effect (below 0: supports the behavior)",
        &nodes,
        ["activation patching", "integrated gradients, corrupted baseline"],
        ["head", "share of the clean-corrupted difference"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(heads: &[[f32; 2]], averaged: Option<OverPairs>) -> Results {
        let head = |(i, [exact, estimate]): (usize, &[f32; 2])| Estimated {
            name: format!("L0H{i}"),
            exact: *exact,
            estimate: *estimate,
        };
        Results {
            logit_differences: [3.0, -3.0],
            heads: heads.iter().enumerate().map(head).collect(),
            neurons: (Some(0.66), 1024),
            averaged,
            right: right_on(Proportion { successes: 97, n: 100 }, "generated prompt"),
        }
    }

    #[test]
    fn the_finding_names_heads_correlations_over_pairs_and_right_answers() {
        let mean = |mean: f32| Some(Mean { mean, ends: [mean - 0.125, mean + 0.125], is_interval: true });
        let averaged = OverPairs { n: 50, means: [mean(0.25), mean(0.75)] };
        let [which, sure, far] =
            sentences(&results(&[[-0.5, -0.49], [0.1, 0.12], [0.0, 0.0]], Some(averaged))).try_into().unwrap();
        assert!(which.starts_with("2 of 3 heads change") && which.ends_with("L0H0 (-50%) and L0H1 (+10%)."), "{which}");
        assert_eq!(
            sure,
            "These effects are from one pair of prompts and have no interval; over 50 generated pairs, the mean \
             Pearson correlation of integrated gradients with activation patching is 0.750 (95% interval 0.625 to \
             0.875) for heads and 0.250 (95% interval 0.125 to 0.375) for neurons; the model is right on 97 of 100 \
             generated prompts."
        );
        assert!(far.contains("is close to the exact effects of 3 heads"), "{far}");
        assert!(far.ends_with("over 1024 neurons the Pearson correlation is 0.660."), "{far}");
    }

    #[test]
    fn a_pair_on_which_no_head_matters_says_so() {
        let found = sentences(&results(&[[0.01, 0.01], [0.0, 0.0]], None));
        assert!(found[0].starts_with("No head changes"), "{}", found[0]);
        assert!(
            found[1].ends_with("have no interval; the model is right on 97 of 100 generated prompts."),
            "{}",
            found[1]
        );
    }

    #[test]
    fn bad_attributions_and_a_model_that_fails_are_named() {
        let failing =
            Results { logit_differences: [-1.0, 2.0], ..results(&[[-0.5, 0.3], [0.1, 0.0], [0.0, 0.0]], None) };
        let [not_the_task, _, _, far] = sentences(&failing).try_into().unwrap();
        assert!(not_the_task.starts_with("The model does not do this task"), "{not_the_task}");
        assert!(far.contains("does not follow") && far.contains("off by 5% or more at L0H0 and L0H1"), "{far}");
    }
}
