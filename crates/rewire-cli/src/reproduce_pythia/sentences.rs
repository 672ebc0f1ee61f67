//! Sentences about the circuit, its heads and the model, for the summary and the report.

use rewire_analysis::path::Receiver;
use rewire_circuits::{KEPT, LEFT, STABLE};
use rewire_hooks::Head;
use rewire_studies::pythia::Circuit;

use super::shown::{Found, Step};

/// Returns the names of heads, or a dash if there is none.
pub(super) fn names(heads: impl IntoIterator<Item = Head>) -> String {
    let names: Vec<String> = heads.into_iter().map(|head| head.to_string()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

/// Returns whether the circuit meets the bars on the judging prompts, and whether the search found
/// a circuit that meets them in nearly all resamples.
pub(super) fn verdict(found: &Found) -> String {
    let Circuit { judged, on_choosing, prompts: [choosing, judging], .. } = &found.circuit;
    let verb = if judged.shares.meet_the_bars() { "meets" } else { "does not meet" };
    let mut text = format!(
        "The circuit {verb} the bars on the {judging} judging prompts. It meets them in {:.1}% of the resamples of \
         these prompts. The bars: the circuit alone keeps {:.0}% to {:.0}% of the logit difference, and {:.0}% to \
         {:.0}% is left without the circuit.",
        100.0 * judged.stability,
        100.0 * KEPT[0],
        100.0 * KEPT[1],
        100.0 * LEFT[0],
        100.0 * LEFT[1],
    );
    if on_choosing.stability < STABLE {
        text += &format!(
            " The search requires both bars in {:.1}% of the resamples of the {choosing} choosing prompts. No set of \
             heads reached that. This set came nearest, with {:.1}%.",
            100.0 * STABLE,
            100.0 * on_choosing.stability
        );
    }
    text
}

/// Returns how many reference prompts each mean of the ablated heads is over.
pub(super) fn reference(found: &Found) -> String {
    let counts = &found.circuit.reference;
    let [fewest, most] = [counts.values().min(), counts.values().max()].map(|n| n.copied().unwrap_or_default());
    let n = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    format!(
        "Ablated heads get means over {n} prompts with three different names, for each of {} combinations of template \
         and length.",
        counts.len()
    )
}

/// Smallest share of right answers of a model that does the task.
const DOES_IT: f64 = 0.75;

/// Returns a warning if the model does not do the task, or if the corruption does not undo it.
pub(super) fn not_the_task(found: &Found) -> Option<String> {
    let [clean, corrupted] = found.parts.baselines.means();
    let does_it = found.right >= DOES_IT && clean > 0.0 && clean > corrupted;
    (!does_it).then(|| {
        format!(
            "The model does not do this task. The logit of IO is above the logit of S on {:.0}% of the prompts. The \
             mean logit difference is {clean:.4} on clean prompts and {corrupted:.4} on corrupted prompts. The heads \
             below are not a circuit for the task, and the signs and shares below mean nothing.",
            100.0 * found.right
        )
    })
}

/// Returns the receivers of a step, and those that no head reaches.
pub(super) fn receivers(step: &Step) -> String {
    let list = |all: &[Receiver]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match step.unreached.as_slice() {
        [] => list(&step.receivers),
        unreached => {
            format!("{} (no head reaches {})", list(&step.receivers), list(unreached))
        }
    }
}
