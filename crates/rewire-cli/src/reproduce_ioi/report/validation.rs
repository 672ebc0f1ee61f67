//! The demo's last section: attribution compared with activation patching for each kind of node,
//! and the nodes with the largest errors.

use ndarray::Array2;
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::stats::{Agreement, NodeError, spearman};
use rewire_analysis::{Effects, Outcome};
use rewire_report::Page;
use rewire_report::charts::{self, HeatMapLabels, Point};
use rewire_studies::ioi::{BLOCKS, HEAD_PARTS};
use rewire_tasks::PromptPairs;

use super::maps::{Labels, attention_map, mean_map};
use crate::model::Source;
use crate::reproduce_ioi::shown::Found;
use rewire_report::names::head_name;
use rewire_report::{agreement, names, screening};

/// Number of nodes with the largest errors listed per kind.
const WORST: usize = 5;
/// Number of heads with the largest errors whose patterns are shown.
const WORST_HEADS: usize = 3;
/// The heads of GPT-2 small for which the demo finds attribution errors. The demo draws their
/// attention.
const GPT2_HEADS: [[usize; 2]; 3] = [[5, 5], [10, 7], [11, 10]];

pub(super) fn sections(page: &mut Page, source: &Source, found: &Found, labels: &Labels) {
    let demo = &found.demo;
    page.section(
        "Validation of attribution by activation patching",
        "Attribution compared with the exact effect, for every kind of node that the demo patches. Nodes before the \
         first position at which the prompts differ have an effect of exactly 0 by both methods and are not compared. \
         R2 is the share of the variance of the exact effects that attribution explains, without refitting its scale. \
         An R2 below 0 means that attribution predicts worse than the mean of the exact effects. Top 10 is the number \
         of the ten largest exact effects that are among the ten largest attributions.",
    );
    page.table(&agreement::HEADER, agreement::rows(&demo.agreements));
    let pairs = &found.sets[0].pairs;
    let screened = &demo.screened;
    page.text(&format!(
        "Screening of all heads by attribution, then verification by patching: {}.",
        screening::in_words(screened, pairs)
    ));
    page.table(&screening::HEADER, screening::rows(screened, pairs, screened.verified.len()));

    let by_position = BLOCKS.map(|(c, title)| (NodeKind::by_position(c), title));
    compared(page, found, labels, "By block and position", &by_position);
    let heads = HEAD_PARTS.map(|(c, title)| (NodeKind::all(c), title));
    compared(page, found, labels, "By head, all positions", &heads);
    saturation(page, source, found);
    let heads = HEAD_PARTS.map(|(c, title)| (NodeKind::by_position(c), title));
    compared(page, found, labels, "By head and position", &heads);
}

/// Adds maps, scatter plots and the nodes with the largest errors for some kinds.
fn compared(page: &mut Page, found: &Found, labels: &Labels, heading: &str, kinds: &[(NodeKind, &str)]) {
    page.section(
        heading,
        "Maps of the exact effects (left) and of the attributions (right), on one color scale. Scatter plots of both, \
         and the nodes with the largest differences, follow.",
    );
    maps_beside(page, found, labels, kinds);
    scatters(page, found, kinds);
    worst_nodes(page, found, kinds);
}

/// Adds maps of the exact effects and of the attributions, one row per kind.
fn maps_beside(page: &mut Page, found: &Found, labels: &Labels, kinds: &[(NodeKind, &str)]) {
    let demo = &found.demo;
    let [rows, columns] = match (are_of_heads(kinds), kinds.first().map(|(kind, _)| kind.by)) {
        (false, _) => labels.by_position(),
        (true, Some(By::All)) => labels.by_head(),
        _ => labels.heads_by_position(),
    };
    let both: Vec<[(String, Array2<f32>); 2]> = kinds
        .iter()
        .filter_map(|(kind, title)| {
            let map = |outcome: &Outcome| Some(mean_map(outcome.effects.iter().find(|e| e.kind == *kind)?));
            let [exact, estimate] = [map(&demo.exact)?, map(&demo.attribution)?];
            Some([(format!("{title} (exact)"), exact), (format!("{title} (attribution)"), estimate)])
        })
        .collect();
    let reach = charts::color_limit(both.iter().flatten().map(|(_, map)| map.view()));
    for of_kind in &both {
        let chart = |(title, map): &(String, Array2<f32>)| {
            charts::heat_map(title, &map.view(), HeatMapLabels { rows, columns, reach })
        };
        page.row(of_kind.iter().map(chart).collect());
    }
}

/// Adds one scatter plot of attributions and exact effects per kind.
fn scatters(page: &mut Page, found: &Found, kinds: &[(NodeKind, &str)]) {
    let pairs = &found.sets[0].pairs;
    let mut scatters = Vec::new();
    for (title, agreement, effects) in agreements(found, kinds) {
        let point = |n: &NodeError| Point {
            x: n.exact,
            y: n.estimate,
            layer: n.place[0],
            name: names::of_node(effects, &n.place, pairs),
        };
        let points: Vec<_> = agreement.errors.iter().map(point).collect();
        let r = agreement.pearson.map_or("none".to_owned(), |r| format!("{r:.3}"));
        let title = format!("{title} (Pearson {r})");
        scatters.push(charts::scatter(&title, &points, ["exact effect (activation patching)", "attribution"]));
    }
    page.row(scatters);
}

/// Adds a table of the nodes with the largest attribution errors, for each kind.
fn worst_nodes(page: &mut Page, found: &Found, kinds: &[(NodeKind, &str)]) {
    let (demo, pairs) = (&found.demo, &found.sets[0].pairs);
    let of_heads = are_of_heads(kinds);
    let mut header = vec!["kind", "node", "exact", "attribution", "error"];
    if of_heads {
        header.push("attention entropy");
    }
    let mut rows = Vec::new();
    for (title, agreement, effects) in agreements(found, kinds) {
        for node in agreement.errors.iter().take(WORST) {
            let mut row = vec![
                title.to_owned(),
                names::of_node(effects, &node.place, pairs),
                format!("{:.4}", node.exact),
                format!("{:.4}", node.estimate),
                format!("{:+.4}", node.error()),
            ];
            if of_heads {
                row.push(
                    demo.entropy_at(pairs, agreement.kind, &node.place).map_or("-".to_owned(), |e| format!("{e:.3}")),
                );
            }
            rows.push(row);
        }
    }
    page.text("The nodes for which attribution differs most from the exact effect:");
    page.table(&header, rows);
}

/// Returns whether any of these kinds is of heads.
fn are_of_heads(kinds: &[(NodeKind, &str)]) -> bool {
    kinds.iter().any(|(kind, _)| kind.is_of_heads())
}

/// Returns the title of each kind that was patched, the agreement of its attributions with its
/// exact effects, and the attributions.
fn agreements<'a>(
    found: &'a Found,
    kinds: &'a [(NodeKind, &str)],
) -> impl Iterator<Item = (&'a str, &'a Agreement, &'a Effects)> {
    kinds.iter().filter_map(|(kind, title)| {
        let agreement = found.demo.agreements.iter().find(|a| a.kind == *kind)?;
        Some((*title, agreement, found.demo.estimate(*kind)?))
    })
}

/// Adds the correlation of attention entropy with attribution error, and the patterns of the heads
/// with the largest errors.
fn saturation(page: &mut Page, source: &Source, found: &Found) {
    let (demo, pairs) = (&found.demo, &found.sets[0].pairs);
    page.section(
        "Why attribution errs: saturated attention",
        "A softmax with nearly all of its weight on one token has a gradient near 0, even if a change of queries or \
         keys would change the attention. Entropy is the entropy of a head's attention on the corrupted prompts, at \
         and after the first position that differs, as a share of the largest possible entropy. 0 means all attention \
         on one token, 1 means equal attention to all tokens. If saturation causes the errors of attribution, large \
         errors occur at low entropy and the rank correlation is negative.",
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
    page.table(&["kind", "heads", "Spearman of entropy and absolute error"], rows);

    let worst = worst_heads(&demo.agreements);
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
    page.table(&["head", "part", "exact", "attribution", "error", "rank of error"], parts(&demo.agreements, &shown));
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
            format!("{:.4}", node.exact),
            format!("{:.4}", node.estimate),
            format!("{:+.4}", node.error()),
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
