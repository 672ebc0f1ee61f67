//! Attributions of the edges between heads.

use ndarray::{Array2, Array3};
use rewire_analysis::attribution::NormJacobian;
use rewire_analysis::node::{Component, NodeKind};
use rewire_report::Page;
use rewire_report::charts::{self, HeatMapLabels, Meaning};
use rewire_report::head_edges as paths;
use rewire_report::names::{INPUTS, head_name};

use super::maps::{Labels, maps, mean_map};
use crate::model::Source;
use crate::reproduce_ioi::arguments::Arguments;
use crate::reproduce_ioi::shown::Found;

/// Number of heads between which the demo shows its edges.
const TOP_HEADS: usize = 22;
/// The heads that the demo studies in GPT-2 small: an induction head, an S-inhibition head and a
/// name mover.
const GPT2_HEADS: [[usize; 2]; 3] = [[5, 5], [8, 6], [9, 9]];

pub(super) fn section(page: &mut Page, source: &Source, found: &Found, labels: &Labels, arguments: &Arguments) {
    let norm = match arguments.norm {
        NormJacobian::Exact => "completely",
        NormJacobian::Frozen => "with its scale held",
    };
    page.section(
        "Edges between heads",
        &format!(
            "Estimates only: the attribution of the edge from the output of one head (sender) to the query, key or \
             value input of a later head (receiver), summed over positions, as a share of the clean-corrupted \
             difference. The norm in front of the receiver is differentiated {norm}. The demo multiplies by the \
             gradient of the norm's scale. It should divide by the scale, as this report does."
        ),
    );
    if labels.layers.len() < 2 {
        page.text("No edges: the model has one layer, so no head sends to a later head.");
        return;
    }
    let sums = paths::over_positions(&found.demo.paths);
    all_edges(page, found, labels, &sums);
    between_top_heads(page, found, labels, &sums);
    in_and_out(page, source, found, labels, &sums);
}

fn all_edges(page: &mut Page, found: &Found, labels: &Labels, sums: &Array3<f32>) {
    let n = labels.all_heads.len();
    // No edge ends in the first layer, and none starts in the last.
    let heads = labels.heads.len();
    let (first_end, starts) = (heads, &labels.all_heads[..n - heads]);
    let all = Array2::from_shape_fn((3 * (n - first_end), starts.len()), |(row, start)| {
        sums[[row % 3, first_end + row / 3, start]]
    });
    let inputs = |head: &String| ["Q", "K", "V"].map(|input| format!("{head}{input}"));
    let ends: Vec<String> = labels.all_heads[first_end..].iter().flat_map(inputs).collect();
    let axes = HeatMapLabels { rows: ("receiver", &ends), columns: ("sender", starts), reach: reach(sums) };
    page.chart(charts::effect_map("All head edges", &all.view(), axes, meaning(found), None));
    page.table(&["edge", "attribution (share)"], paths::largest(&found.demo.paths, 20));
}

fn between_top_heads(page: &mut Page, found: &Found, labels: &Labels, sums: &Array3<f32>) {
    let Some(heads) = found.demo.estimate(NodeKind::all(Component::HeadZ)).map(mean_map) else { return };
    let mut ranked: Vec<(usize, f32)> = heads.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let sizes: Vec<(String, f32)> = ranked.iter().map(|(h, v)| (labels.all_heads[*h].clone(), v.abs())).collect();
    let axes = ["heads, largest attribution first", "absolute attribution (share)"];
    page.text(&format!(
        "The {} heads of largest attribution, and the edges between them:",
        TOP_HEADS.min(labels.all_heads.len())
    ));
    page.chart(charts::ranked_line("Head output attribution, by absolute value", &sizes, axes));
    let mut top: Vec<usize> = ranked.iter().take(TOP_HEADS).map(|(h, _)| *h).collect();
    top.sort_unstable();
    let names: Vec<String> = top.iter().map(|&h| labels.all_heads[h].clone()).collect();
    for (input, name) in INPUTS.into_iter().enumerate() {
        let map = paths::between(sums, input, &top);
        let axes = HeatMapLabels { rows: ("receiver", &names), columns: ("sender", &names), reach: reach(sums) };
        page.chart(charts::effect_map(&format!("Into the {name}"), &map.view(), axes, meaning(found), None));
    }
}

/// Adds the edges into and out of three heads.
fn in_and_out(page: &mut Page, source: &Source, found: &Found, labels: &Labels, sums: &Array3<f32>) {
    let (layers, heads) = (labels.layers.len(), labels.heads.len());
    let (chosen, why) = match source.is_gpt2_small() {
        true => (
            GPT2_HEADS.to_vec(),
            "the three that the demo studies: L5H5 (induction), L8H6 (S-inhibition), L9H9 (name mover)",
        ),
        false => (
            found.sets[0].heads(0).iter().take(3).map(|h| [h.layer, h.head]).collect(),
            "the three of largest exact effect",
        ),
    };
    page.text(&format!(
        "Edges of three heads: {why}. In: edges from other heads into the head's query, key or value. Out: edges from \
         the head into the query, key or value of other heads."
    ));
    for [layer, head] in chosen {
        let index = layer * heads + head;
        let mut both = Vec::new();
        for (input, name) in INPUTS.into_iter().enumerate() {
            let map = Array2::from_shape_fn((layers, heads), |(l, h)| sums[[input, index, l * heads + h]]);
            both.push((format!("{}: {name} (in)", head_name(layer, head)), map));
        }
        for (input, name) in INPUTS.into_iter().enumerate() {
            let map = Array2::from_shape_fn((layers, heads), |(l, h)| sums[[input, l * heads + h, index]]);
            both.push((format!("{}: {name} (out)", head_name(layer, head)), map));
        }
        // A head of the first layer has no edges in, and a head of the last layer none out.
        both.retain(|(_, map)| map.iter().any(|v| *v != 0.0));
        match both.is_empty() {
            true => page.text(&format!("{} has no edge with an attribution other than 0.", head_name(layer, head))),
            false => maps(page, &both, labels.by_head(), meaning(found)),
        }
    }
}

/// Returns the meaning of attributions of edges: that of attributions of nodes.
fn meaning(found: &Found) -> Meaning<'static> {
    Meaning::of(&found.demo.attribution)
}

/// Returns the limit of the color scale for all edges.
fn reach(sums: &Array3<f32>) -> f32 {
    charts::color_limit(sums.outer_iter())
}
