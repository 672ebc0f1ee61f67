//! Attributions of single cells of attention patterns.

use ndarray::{Array4, ArrayView4, Axis, Ix4};
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_report::names::head_name;
use rewire_report::{AttentionMap, Page};
use rewire_tasks::PromptPairs;

use super::maps::attention_map;
use crate::reproduce_ioi::shown::Found;

/// Number of half heads (positive or negative cells of one head) whose maps the demo shows.
const TOP_HALVES: usize = 20;

pub(super) fn section(page: &mut Page, found: &Found) {
    let pairs = &found.sets[0].pairs;
    page.section(
        "Attention cell by cell",
        "Estimates only, because a pattern has too many cells to patch each. Each head has two maps, one of its \
         positive cells (+, blue) and one of its negative cells (-, red). Each list shows at most the 20 maps with the \
         largest cells, each scaled by its largest cell.",
    );
    let cells = &found.demo.attention_attribution;
    shown(
        page,
        "The pattern times the gradient of the logit difference at the pattern, on the clean run, in logits: to first \
         order the loss of logit difference if that cell were 0. Corrupted prompts are not used. On the first prompt:",
        largest_halves(&cells.index_axis(Axis(0), 0), pairs),
    );
    let sum: Array4<f32> = cells.sum_axis(Axis(0));
    shown(
        page,
        "The sum over all prompts, labeled with the first prompt's tokens. The order of the indirect object and the \
         first subject differs between prompts:",
        largest_halves(&sum.view(), pairs),
    );
    let kind = NodeKind { component: Component::HeadPattern, by: By::Cell };
    let mean = found.demo.estimate(kind).and_then(|e| e.mean().into_dimensionality::<Ix4>().ok());
    shown(
        page,
        "The attribution of each cell if the corrupted run takes it from the clean run, as a share of the \
         clean-corrupted difference. Means over prompts, labeled with the first prompt's tokens:",
        mean.map(|mean| largest_halves(&mean.view(), pairs)).unwrap_or_default(),
    );
}

/// Adds maps with the text above them, or why there are none.
fn shown(page: &mut Page, text: &str, maps: Vec<AttentionMap>) {
    page.text(text);
    match maps.is_empty() {
        true => page.text("No map: every cell is 0."),
        false => page.attention(maps),
    }
}

/// Returns the maps of the half heads with the largest cells. As in the demo, positive and negative
/// cells are separate maps, and each map is scaled by its largest cell.
fn largest_halves(cells: &ArrayView4<f32>, pairs: &PromptPairs) -> Vec<AttentionMap> {
    let (layers, heads, ..) = cells.dim();
    let halves = (0..layers).flat_map(|l| (0..heads).map(move |h| [l, h])).flat_map(|[layer, head]| {
        ["+", "-"].map(|sign| {
            let half = |v: f32| if sign == "+" { v.max(0.0) } else { v.min(0.0) };
            let of_head = attention_map(format!("{}{sign}", head_name(layer, head)), *cells, [layer, head], pairs, 0);
            AttentionMap { values: of_head.values.mapv(half), ..of_head }
        })
    });
    let size = |map: &AttentionMap| map.values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let mut halves: Vec<AttentionMap> = halves.filter(|map| size(map) > 0.0).collect();
    halves.sort_by(|a, b| size(b).total_cmp(&size(a)));
    halves.truncate(TOP_HALVES);
    halves
}
