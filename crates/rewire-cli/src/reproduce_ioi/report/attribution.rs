//! The demo's attributions: attention, residual stream, layers, heads, patterns, head edges.

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

/// Number of heads between which the demo shows its edges.
const TOP_HEADS: usize = 22;
/// Number of half heads (positive or negative cells of one head) whose maps the demo shows.
const TOP_HALVES: usize = 20;
/// The heads that the demo studies in GPT-2 small: an induction head, an S-inhibition head and a
/// name mover.
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

fn attention(page: &mut Page, found: &Found, pairs: &PromptPairs) {
    page.section(
        "Attention attribution",
        "Each cell is the attention pattern times the gradient of the metric at the pattern, on the clean run. To \
         first order this is the loss of the metric if that cell were 0. Corrupted prompts are not used. Each head has \
         two maps, one of its positive cells (+, blue) and one of its negative cells (-, red). The section shows the \
         20 maps with the largest cells.",
    );
    let cells = &found.demo.attention_attribution;
    page.text("On the first prompt:");
    page.attention(largest_halves(&cells.index_axis(Axis(0), 0), pairs));
    page.text(
        "Summed over all eight prompts, labeled with the first prompt's tokens. The order of the indirect object and \
         the first subject differs between prompts.",
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
        "The estimated share of the behavior that is restored when the corrupted run takes the residual stream at one \
         position from the clean run. Rows are the residual stream before each block (resid_pre), between its \
         attention and its MLP (resid_mid), and after the last block (end).",
    );
    let of = |c| estimate(found, NodeKind::by_position(c)).map(mean_map);
    let (Some(pre), Some(post)) = (of(Component::ResidPre), of(Component::ResidPost)) else { return };
    let mid = of(Component::ResidMid);
    let mut rows = Vec::new();
    let mut names = Vec::new();
    for layer in 0..pre.nrows() {
        rows.push(pre.row(layer));
        names.push(format!("resid_pre:L{layer}"));
        if let Some(mid) = &mid {
            rows.push(mid.row(layer));
            names.push(format!("resid_mid:L{layer}"));
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
        "The attribution of the output of each embedding, attention layer and MLP, by position.",
    );
    let of = |c| estimate(found, NodeKind::by_position(c)).map(mean_map);
    let (Some(embed), Some(attention), Some(mlp)) =
        (of(Component::ResidPre), of(Component::AttnOut), of(Component::MlpOut))
    else {
        return;
    };
    // Before block 0 the residual streams of both runs differ only in the token embeddings: the
    // position embeddings are the same.
    let mut names = vec!["embed".to_owned()];
    let mut rows = vec![embed.row(0).to_owned()];
    if !source.config.is_rotary() {
        names.push("pos_embed".to_owned());
        rows.push(embed.row(0).mapv(|_| 0.0));
    }
    for layer in 0..attention.nrows() {
        names.extend([format!("attn_out:L{layer}"), format!("mlp_out:L{layer}")]);
        rows.extend([attention.row(layer).to_owned(), mlp.row(layer).to_owned()]);
    }
    let map = Array2::from_shape_fn((rows.len(), labels.tokens.len()), |(row, pos)| rows[row][pos]);
    let axes = [("component", names.as_slice()), ("position", &labels.tokens)];
    maps(page, &[("Layer outputs".to_owned(), map)], axes);
}

/// Adds the attributions of head outputs, keys, queries, values and mixed values, by position and
/// summed over positions.
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
            0 => "The attribution of each head's output, by position and summed over positions.",
            4 => {
                "A check: the output of a head is a linear function of its mixed values, so both have the same \
                 attribution."
            }
            _ => "The attribution of one input of each head's attention, by position and summed over positions.",
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
        "The attribution of each cell of each head's pattern, if the corrupted run takes it from the clean run. \
         Effects are means over prompts, labeled with the first prompt's tokens. The section shows the 20 maps of \
         positive or negative cells with the largest cells.",
    );
    let kind = NodeKind { component: Component::HeadPattern, by: By::Cell };
    let mean = estimate(found, kind).and_then(|e| e.mean().into_dimensionality::<ndarray::Ix4>().ok());
    if let Some(mean) = mean {
        page.attention(largest_halves(&mean.view(), pairs));
    }
}

fn head_edges(page: &mut Page, found: &Found, labels: &Labels, arguments: &Arguments) {
    page.section(
        "Head edge attribution",
        &format!(
            "The attribution of the edge from the output of a head (column, sender) to the query, key or value input \
             of a later head (row, receiver), summed over positions. The norm in front of the receiver is \
             differentiated {}. The demo multiplies by the gradient of the norm's scale. It should divide by the \
             scale, as this report does.",
            match arguments.norm {
                rewire_analysis::attribution::NormJacobian::Exact => "completely",
                rewire_analysis::attribution::NormJacobian::Frozen => "with its scale held",
            }
        ),
    );
    let sums = paths::over_positions(&found.demo.paths);
    let n = labels.all_heads.len();
    let reach = charts::color_limit(sums.outer_iter());
    // No edge ends in the first layer, and none starts in the last.
    let heads = labels.heads.len();
    let (first_end, starts) = (heads, &labels.all_heads[..n - heads]);
    let all = Array2::from_shape_fn((3 * (n - first_end), starts.len()), |(row, start)| {
        sums[[row % 3, first_end + row / 3, start]]
    });
    let inputs = |head: &String| ["Q", "K", "V"].map(|input| format!("{head}{input}"));
    let ends: Vec<String> = labels.all_heads[first_end..].iter().flat_map(inputs).collect();
    let axes = HeatMapLabels { rows: ("receiver", &ends), columns: ("sender", starts), reach };
    page.chart(charts::heat_map("All head edges", &all.view(), axes));
    page.table(&["edge", "attribution"], paths::largest(&found.demo.paths, 20));

    let Some(heads) = estimate(found, NodeKind::all(Component::HeadZ)).map(mean_map) else { return };
    let mut ranked: Vec<(usize, f32)> = heads.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let sizes: Vec<(String, f32)> = ranked.iter().map(|(h, v)| (labels.all_heads[*h].clone(), v.abs())).collect();
    let axes = ["heads, largest attribution first", "absolute attribution"];
    page.section(
        "Head edges between the top heads",
        &format!("The {} heads of largest attribution, and the edges between them.", TOP_HEADS.min(n)),
    );
    page.chart(charts::ranked_line("Head output attribution, by absolute value", &sizes, axes));
    let mut top: Vec<usize> = ranked.iter().take(TOP_HEADS).map(|(h, _)| *h).collect();
    top.sort_unstable();
    let names: Vec<String> = top.iter().map(|&h| labels.all_heads[h].clone()).collect();
    for (input, name) in INPUTS.into_iter().enumerate() {
        let map = paths::between(&sums, input, &top);
        let axes = HeatMapLabels { rows: ("receiver", &names), columns: ("sender", &names), reach };
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
        true => "the three that the demo studies: L5H5 (induction), L8H6 (S-inhibition), L9H9 (name mover)",
        false => "the three of largest exact effect",
    };
    page.section(
        "Incoming and outgoing edges of three heads",
        &format!(
            "The heads are {why}. In: edges from other heads into the head's query, key or value. Out: edges from the \
             head into the query, key or value of other heads."
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
