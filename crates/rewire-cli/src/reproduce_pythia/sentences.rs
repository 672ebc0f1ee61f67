//! Sentences about the circuit, its heads and the model, for the summary and the report.

use rewire_analysis::path::Receiver;
use rewire_circuits::{KEPT, LEFT, STABLE};
use rewire_hooks::Head;
use rewire_studies::pythia::Circuit;

use super::shown::{Found, Step};

/// Names of heads, or a dash.
pub(super) fn names(heads: impl IntoIterator<Item = Head>) -> String {
    let names: Vec<String> = heads.into_iter().map(|head| head.to_string()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

/// Whether the circuit meets the bars on the judging prompts, and whether the search found one that
/// met them reliably.
pub(super) fn verdict(found: &Found) -> String {
    let Circuit { judged, on_choosing, prompts: [choosing, judging], .. } = &found.circuit;
    let verb = if judged.shares.meet_the_bars() { "meets" } else { "does not meet" };
    let mut text = format!(
        "The circuit {verb} the bars on the {judging} judging prompts; {:.1}% of their resamples do. The bars: {:.0}% to {:.0}% of the \
         logit difference is kept alone, and {:.0}% to {:.0}% is left without the circuit.",
        100.0 * judged.stability,
        100.0 * KEPT[0],
        100.0 * KEPT[1],
        100.0 * LEFT[0],
        100.0 * LEFT[1],
    );
    if on_choosing.stability < STABLE {
        text += &format!(
            " No set of heads that was tried meets them in {:.1}% of the resamples of the {choosing} choosing prompts: this one comes \
             nearest, with {:.1}%.",
            100.0 * STABLE,
            100.0 * on_choosing.stability
        );
    }
    text
}

/// How many reference prompts the means of ablated heads are over.
pub(super) fn reference(found: &Found) -> String {
    let counts = &found.circuit.reference;
    let [fewest, most] = [counts.values().min(), counts.values().max()].map(|n| n.copied().unwrap_or_default());
    let n = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    format!("Means are over {n} prompts of three different names for each of {} templates and lengths.", counts.len())
}

/// Share of right answers under which a model does not do the task.
const DOES_IT: f64 = 0.75;

/// What is said where the model does not do the task, or the corruption does not undo it.
pub(super) fn not_the_task(found: &Found) -> Option<String> {
    let [clean, corrupted] = found.parts.baselines.means();
    let does_it = found.right >= DOES_IT && clean > 0.0 && clean > corrupted;
    (!does_it).then(|| {
        format!(
            "The model does not do this task: it has IO above S on {:.0}% of the prompts, and its mean logit difference is \
             {clean:.4}, corrupted {corrupted:.4}. What follows is no circuit for it, and its signs and shares mean nothing.",
            100.0 * found.right
        )
    })
}

/// What a step goes into, and which of it no head reaches.
pub(super) fn receivers(step: &Step) -> String {
    let list = |all: &[Receiver]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match step.unreached.as_slice() {
        [] => list(&step.receivers),
        unreached => {
            format!("{} (nothing reaches {})", list(&step.receivers), list(unreached))
        }
    }
}
