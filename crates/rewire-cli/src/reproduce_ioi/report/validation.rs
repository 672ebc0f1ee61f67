//! Checks of attribution: its agreement with activation patching for each kind of node, and
//! saturated attention as the cause of its errors.

use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::stats::{Agreement, NodeError, spearman};
use rewire_report::Page;
use rewire_report::names::head_name;
use rewire_report::{agreement, screening};
use rewire_studies::ioi::HEAD_PARTS;
use rewire_tasks::PromptPairs;

use super::maps::attention_map;
use crate::model::Source;
use crate::reproduce_ioi::shown::Found;
use rewire_report::numbers::{number, signed};

/// Number of heads with the largest errors whose patterns are shown.
const WORST_HEADS: usize = 3;
/// The heads of GPT-2 small for which the demo finds attribution errors. The demo draws their
/// attention.
const GPT2_HEADS: [[usize; 2]; 3] = [[5, 5], [10, 7], [11, 10]];

pub(super) fn sections(page: &mut Page, source: &Source, found: &Found) {
    let demo = &found.demo;
    page.section(
        "How far attribution is from the exact effects",
        "One row for each kind of node that the demo patches, over its prompts, denoising. Correlations, slope and R2 \
         have no unit; 1 is perfect. Nodes before the first position at which the prompts differ have an effect of \
         exactly 0 by both methods and are not compared. R2 is the share of the variance of the exact effects that \
         attribution explains, without refitting its scale: below 0, attribution predicts worse than the mean of the \
         exact effects. Top 10 is the number of the ten largest exact effects that are among the ten largest \
         attributions.",
    );
    page.table(&agreement::HEADER, agreement::rows(&demo.agreements));
    let pairs = &found.sets[0].pairs;
    let screened = &demo.screened;
    page.text(&format!(
        "Screening of all heads by attribution, then verification by patching: {}. Effects are shares of the \
         clean-corrupted difference:",
        screening::in_words(screened, pairs)
    ));
    page.table(&screening::HEADER, screening::rows(screened, pairs, screened.verified.len()));
    saturation(page, source, found);
}

/// Adds the correlation of attention entropy with attribution error.
fn saturation(page: &mut Page, source: &Source, found: &Found) {
    let (demo, pairs) = (&found.demo, &found.sets[0].pairs);
    page.section(
        "Why attribution errs: saturated attention",
        "Large errors at low entropy, a correlation below 0, point to saturation as the cause of attribution's errors. \
         A softmax with nearly all of its weight on one token has a gradient near 0, even if a change of queries or \
         keys would change the attention. Entropy is the entropy of a head's attention on the corrupted prompts, at \
         and after the first position that differs, as a share of the largest possible entropy. 0 means all attention \
         on one token, 1 means equal attention to all tokens.",
    );
    let mut rows = Vec::new();
    for (component, title) in HEAD_PARTS {
        let kind = NodeKind::all(component);
        let Some(agreement) = demo.agreements.iter().find(|a| a.kind == kind) else { continue };
        let pairs_of =
            agreement.errors.iter().filter_map(|n| Some((demo.entropy_at(pairs, kind, &n.place)?, n.error().abs())));
        let rank = spearman(pairs_of).map_or("-".to_owned(), |r| format!("{r:.3}"));
        rows.push(vec![title.to_owned(), agreement.compared.to_string(), rank]);
    }
    page.table(&["kind", "heads", "Spearman of entropy and absolute error (no unit)"], rows);
    largest_errors(page, source, found);
}

/// Adds the heads with the largest attribution errors in queries and keys, with their attention.
fn largest_errors(page: &mut Page, source: &Source, found: &Found) {
    let (demo, pairs) = (&found.demo, &found.sets[0].pairs);
    let worst = worst_heads(&demo.agreements);
    if worst.is_empty() {
        page.text("No head is listed: every effect of queries and keys is 0 by both methods.");
        return;
    }
    let shown = match source.is_gpt2_small() {
        true => {
            let names = worst.iter().map(|[layer, head]| head_name(*layer, *head)).collect::<Vec<_>>().join(", ");
            page.text(&format!(
                "The demo names three heads with attribution errors: L5H5 (query), L10H7 (query and key) and L11H10 \
                 (key). The demo prints no numbers. It finds no errors in their patterns and outputs. In this run the \
                 largest errors of queries and keys are at {names}."
            ));
            GPT2_HEADS.to_vec()
        }
        false => {
            page.text("The three heads with the largest attribution errors in queries or keys:");
            worst
        }
    };
    page.table(&PARTS, parts(&demo.agreements, &shown));
    page.text(
        "Rank 1 is the largest error of that part among all heads. The maps show the attention of these heads on every \
         clean prompt.",
    );
    let one = |pairs: &PromptPairs, prompt: usize, [layer, head]: [usize; 2]| {
        let name = format!("{}, prompt {}", head_name(layer, head), prompt + 1);
        let of_prompt = demo.patterns.index_axis(ndarray::Axis(0), prompt);
        attention_map(name, of_prompt, [layer, head], pairs, prompt)
    };
    let all = shown.iter().flat_map(|head| (0..pairs.len()).map(|prompt| one(pairs, prompt, *head)));
    page.attention(all.collect());
}

/// Header of [`parts`].
const PARTS: [&str; 6] = ["head", "part", "exact (share)", "attribution (share)", "error (share)", "rank of error"];

/// Returns the heads with the largest attribution errors in queries or keys.
fn worst_heads(agreements: &[Agreement]) -> Vec<[usize; 2]> {
    let of_inputs =
        agreements.iter().filter(|a| [Component::HeadQ, Component::HeadK].map(NodeKind::all).contains(&a.kind));
    let mut errors: Vec<&NodeError> = of_inputs.flat_map(|a| &a.errors).collect();
    errors.sort_by(|a, b| b.error().abs().total_cmp(&a.error().abs()));
    let mut heads: Vec<[usize; 2]> = Vec::new();
    for error in errors {
        let head = [error.place[0], error.place[1]];
        if !heads.contains(&head) && heads.len() < WORST_HEADS {
            heads.push(head);
        }
    }
    heads
}

/// Returns a row for each part of each head: exact effect, attribution, error, and rank of the
/// error.
fn parts(agreements: &[Agreement], heads: &[[usize; 2]]) -> Vec<Vec<String>> {
    let row = |head: &[usize; 2], (component, part): (Component, &str)| {
        let agreement = agreements.iter().find(|a| a.kind == NodeKind::all(component))?;
        // The largest error is the first.
        let rank = agreement.errors.iter().position(|n| n.place == head)?;
        let node = &agreement.errors[rank];
        Some(vec![
            head_name(head[0], head[1]),
            part.to_owned(),
            number(node.exact),
            number(node.estimate),
            signed(node.error()),
            format!("{} of {}", rank + 1, agreement.compared),
        ])
    };
    heads.iter().flat_map(|head| HEAD_PARTS.into_iter().filter_map(move |part| row(head, part))).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rewire_analysis::Effects;

    use super::*;

    /// Returns the agreement of attributions with exact effects of 0.1 on 12 layers of 12 heads;
    /// `off` lists the heads whose attributions have errors.
    fn agreement(component: Component, off: &[([usize; 2], f32)]) -> Agreement {
        let kind = NodeKind::all(component);
        let values = Array3::from_elem((1, 12, 12), 0.1).into_dyn();
        let exact = Effects::new(kind, values, Vec::new());
        let mut estimate = exact.clone();
        off.iter().for_each(|([layer, head], by)| estimate.values[[0, *layer, *head]] += by);
        Agreement::new(&exact, &estimate, 10).unwrap()
    }

    #[test]
    fn heads_are_ranked_by_the_errors_of_their_queries_and_keys() {
        let agreements = [
            agreement(Component::HeadZ, &[([0, 0], 9.0)]),
            agreement(Component::HeadQ, &[([5, 5], -0.3), ([10, 7], 0.1)]),
            agreement(Component::HeadK, &[([10, 7], 0.2), ([11, 10], 0.15), ([1, 1], 0.01)]),
        ];
        assert_eq!(worst_heads(&agreements), GPT2_HEADS);
        let rows = parts(&agreements, &GPT2_HEADS);
        assert_eq!(rows.len(), 9);
        assert_eq!(rows[1], ["L5H5", "Query", "0.1000", "-0.2000", "-0.3000", "1 of 144"]);
        assert_eq!(rows[4], ["L10H7", "Query", "0.1000", "0.2000", "+0.1000", "2 of 144"]);
        assert_eq!(rows[8][5], "2 of 144");
    }
}
