//! The demo's attributions: attention, residual stream, layers, heads, patterns, paths.

use ndarray::{Array2, Array4, ArrayView4, Axis, concatenate};
use rewire_analysis::Effects;
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_report::charts::{self, HeatMapLabels};
use rewire_report::{AttentionMap, Page};
use rewire_tasks::PromptPairs;

use super::maps::{Labels, attention_map, maps, mean_map};
use crate::model::Source;
use crate::reproduce_ioi::arguments::Arguments;
use crate::reproduce_ioi::shown::Found;
use rewire_report::head_edges as paths;
use rewire_report::names::INPUTS;
use rewire_report::names::head_name;

/// Heads that the demo filters its paths for.
const TOP_HEADS: usize = 22;
/// Halves of heads, positive and negative, whose maps the demo shows.
const TOP_HALVES: usize = 20;
/// The heads that the demo dives into, on GPT-2 small: an induction head, an S-inhibition head, a name mover.
const GPT2_HEADS: [[usize; 2]; 3] = [[5, 5], [8, 6], [9, 9]];

pub(super) fn sections(page: &mut Page, source: &Source, found: &Found, labels: &Labels, arguments: &Arguments) {
    let pairs = &found.sets[0].pairs;
    attention(page, found, pairs);
    residual(page, found, labels);
    layer_outputs(page, source, found, labels);
    head_vectors(page, found, labels);
    patterns(page, found, pairs);
    head_edges(page, found, labels, arguments);
    in_and_out(page, source, found, labels);
}

/// The largest halves of heads, each scaled as the demo does: positive and negative apart, by their largest cell.
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

fn attention(page: &mut Page, found: &Found, pairs: &PromptPairs) {
    page.section(
        "Attention attribution",
        "Pattern times the gradient of the metric at the pattern, on the clean run: to first order, what would be lost if that \
         cell of the attention pattern were 0. No corrupted prompt enters. The 20 halves of heads, positive (+, blue) and \
         negative (-, red), with the largest cells.",
    );
    let cells = &found.demo.attention_attribution;
    page.text("On the first prompt:");
    page.attention(largest_halves(&cells.index_axis(Axis(0), 0), pairs));
    page.text(
        "Summed over all eight prompts, over the first one's tokens; the prompts have indirect object and first subject in \
         either order.",
    );
    let sum: Array4<f32> = cells.sum_axis(Axis(0));
    page.attention(largest_halves(&sum.view(), pairs));
}

fn estimate(found: &Found, kind: NodeKind) -> Option<&Effects> {
    found.demo.estimate(kind)
}

fn residual(page: &mut Page, found: &Found, labels: &Labels) {
    page.section(
        "Residual stream attribution",
        "Before each block, between its attention and MLP, and at the end: the estimated share of the behavior that comes back \
         when the corrupted run takes the residual stream at that position from the clean one.",
    );
    let of = |c| estimate(found, NodeKind::by_position(c)).map(mean_map);
    let (Some(pre), Some(post)) = (of(Component::ResidPre), of(Component::ResidPost)) else { return };
    let mid = of(Component::ResidMid);
    let mut rows = Vec::new();
    let mut names = Vec::new();
    for layer in 0..pre.nrows() {
        rows.push(pre.row(layer));
        names.push(format!("L{layer} pre"));
        if let Some(mid) = &mid {
            rows.push(mid.row(layer));
            names.push(format!("L{layer} mid"));
        }
    }
    rows.push(post.row(post.nrows() - 1));
    names.push("end".to_owned());
    let views: Vec<_> = rows.iter().map(|r| r.insert_axis(Axis(0))).collect();
    let Ok(map) = concatenate(Axis(0), &views) else { return };
    let axes = [("component", names.as_slice()), ("position", &labels.tokens)];
    maps(page, &[("Residual stream".to_owned(), map)], axes);
}

fn layer_outputs(page: &mut Page, source: &Source, found: &Found, labels: &Labels) {
    page.section(
        "Layer output attribution",
        "What each embedding, attention layer and MLP writes into the residual stream, by position.",
    );
    let of = |c| estimate(found, NodeKind::by_position(c)).map(mean_map);
    let (Some(embed), Some(attention), Some(mlp)) =
        (of(Component::ResidPre), of(Component::AttnOut), of(Component::MlpOut))
    else {
        return;
    };
    // The token embedding is all that differs in the stream before block 0; positions are embedded alike in both runs.
    let mut names = vec!["embed".to_owned()];
    let mut rows = vec![embed.row(0).to_owned()];
    if !source.config.is_rotary() {
        names.push("pos_embed".to_owned());
        rows.push(embed.row(0).mapv(|_| 0.0));
    }
    for layer in 0..attention.nrows() {
        names.extend([format!("L{layer} attn_out"), format!("L{layer} mlp_out")]);
        rows.extend([attention.row(layer).to_owned(), mlp.row(layer).to_owned()]);
    }
    let map = Array2::from_shape_fn((rows.len(), labels.tokens.len()), |(row, pos)| rows[row][pos]);
    let axes = [("component", names.as_slice()), ("position", &labels.tokens)];
    maps(page, &[("Layer outputs".to_owned(), map)], axes);
}

/// By position and summed over positions: what heads write, their keys, queries, values and mixed values.
fn head_vectors(page: &mut Page, found: &Found, labels: &Labels) {
    let kinds = [
        (Component::HeadZ, "Head output attribution", "Head output"),
        (Component::HeadK, "Key attribution", "Key"),
        (Component::HeadQ, "Query attribution", "Query"),
        (Component::HeadV, "Value attribution", "Value"),
        (Component::HeadZ, "Mixed value attribution", "Mixed value"),
    ];
    for (index, (component, heading, title)) in kinds.into_iter().enumerate() {
        let lead = match index {
            0 => "What each head writes into the residual stream, by position and summed over positions.",
            4 => {
                "As a check: a head's output is a linear image of its mixed values, so both attributions are the same."
            }
            _ => "One input of each head's attention, by position and summed over positions.",
        };
        page.section(heading, lead);
        let (Some(by_position), Some(summed)) = (
            estimate(found, NodeKind::by_position(component)).map(mean_map),
            estimate(found, NodeKind::all(component)).map(mean_map),
        ) else {
            continue;
        };
        maps(page, &[(format!("{title}, by position"), by_position)], labels.heads_by_position());
        maps(page, &[(format!("{title}, summed over positions"), summed)], labels.by_head());
    }
}

fn patterns(page: &mut Page, found: &Found, pairs: &PromptPairs) {
    page.section(
        "Head pattern attribution",
        "Each cell of each head's pattern, from the clean run in the corrupted one: the 20 halves of heads with the largest \
         cells, mean over prompts, over the first one's tokens.",
    );
    let kind = NodeKind { component: Component::HeadPattern, by: By::Cell };
    let mean = estimate(found, kind).and_then(|e| e.mean().into_dimensionality::<ndarray::Ix4>().ok());
    if let Some(mean) = mean {
        page.attention(largest_halves(&mean.view(), pairs));
    }
}

fn head_edges(page: &mut Page, found: &Found, labels: &Labels, arguments: &Arguments) {
    page.section(
        "Head path attribution",
        &format!(
            "From what a head (column) writes to the query, key or value input of a later head (row), summed over positions; the \
             norm in between is differentiated {}. The demo multiplies by the gradient of the norm's scale where it should divide \
             by the scale; this divides.",
            match arguments.norm {
                rewire_analysis::attribution::NormJacobian::Exact => "whole",
                rewire_analysis::attribution::NormJacobian::Frozen => "with its scale held",
            }
        ),
    );
    let sums = paths::over_positions(&found.demo.paths);
    let n = labels.all_heads.len();
    let reach = charts::color_limit(sums.outer_iter());
    // No path ends in the first layer or starts in the last.
    let heads = labels.heads.len();
    let (first_end, starts) = (heads, &labels.all_heads[..n - heads]);
    let all = Array2::from_shape_fn((3 * (n - first_end), starts.len()), |(row, start)| {
        sums[[row % 3, first_end + row / 3, start]]
    });
    let inputs = |head: &String| ["Q", "K", "V"].map(|input| format!("{head}{input}"));
    let ends: Vec<String> = labels.all_heads[first_end..].iter().flat_map(inputs).collect();
    let axes = HeatMapLabels { rows: ("path end", &ends), columns: ("path start", starts), reach };
    page.chart(charts::heat_map("All head edges", &all.view(), axes));
    page.table(&["path", "effect"], paths::largest(&found.demo.paths, 20));

    let Some(heads) = estimate(found, NodeKind::all(Component::HeadZ)).map(mean_map) else { return };
    let mut ranked: Vec<(usize, f32)> = heads.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let sizes: Vec<(String, f32)> = ranked.iter().map(|(h, v)| (labels.all_heads[*h].clone(), v.abs())).collect();
    let axes = ["heads in falling order", "size of attribution"];
    page.section(
        "Head edges between the top heads",
        &format!("The {} heads of largest attribution, and the paths between them.", TOP_HEADS.min(n)),
    );
    page.chart(charts::ranked_line("Head output attribution, by size", &sizes, axes));
    let mut top: Vec<usize> = ranked.iter().take(TOP_HEADS).map(|(h, _)| *h).collect();
    top.sort_unstable();
    let names: Vec<String> = top.iter().map(|&h| labels.all_heads[h].clone()).collect();
    for (input, name) in INPUTS.into_iter().enumerate() {
        let map = paths::between(&sums, input, &top);
        let axes = HeatMapLabels { rows: ("path end", &names), columns: ("path start", &names), reach };
        page.chart(charts::heat_map(&format!("Into the {name}"), &map.view(), axes));
    }
}

fn in_and_out(page: &mut Page, source: &Source, found: &Found, labels: &Labels) {
    let sums = paths::over_positions(&found.demo.paths);
    let (layers, heads) = (labels.layers.len(), labels.heads.len());
    let exact = found.sets[0].heads(0);
    let chosen: Vec<[usize; 2]> = match source.is_gpt2_small() {
        true => GPT2_HEADS.to_vec(),
        false => exact.iter().take(3).map(|h| [h.layer, h.head]).collect(),
    };
    let why = match source.is_gpt2_small() {
        true => "the demo's: L5H5 (induction), L8H6 (S-inhibition), L9H9 (name mover)",
        false => "those of largest exact effect",
    };
    page.section(
        "Input and output paths of three heads",
        &format!(
            "The heads are {why}. In: from which heads its query, key and value take what matters. Out: whose it feeds."
        ),
    );
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
        maps(page, &both, labels.by_head());
    }
}
