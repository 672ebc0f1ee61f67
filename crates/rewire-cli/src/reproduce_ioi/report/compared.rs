//! Exact effects with the attributions beside them: layers by position, and the parts of heads.

use ndarray::{Array1, Array2};
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::stats::{Agreement, NodeError};
use rewire_analysis::{Effects, Outcome};
use rewire_report::Page;
use rewire_report::charts::{self, Meaning, Point};
use rewire_report::names;
use rewire_studies::ioi::{BLOCKS, HEAD_PARTS};

use super::maps::{Labels, mean_map, side_by_side};
use crate::model::Source;
use crate::reproduce_ioi::shown::Found;
use rewire_report::numbers::{number, signed};

/// Number of nodes with the largest errors listed per kind.
const WORST: usize = 5;

pub(super) fn sections(page: &mut Page, source: &Source, found: &Found, labels: &Labels) {
    page.section(
        "Layers by position",
        "The corrupted run takes one vector of one layer, at one position, from the clean run. Exact effects on the \
         left, attributions on the right, on one color scale, in shares of the clean-corrupted difference. Rows of the \
         residual stream: before each block (pre), between its attention and its MLP (mid), after the last block \
         (end). Rows of the outputs: the embeddings, then the attention and the MLP of each layer.",
    );
    for (title, stacked) in [("Residual stream", residual(found)), ("Outputs", outputs(source, found))] {
        if let Some(Stacked { rows, maps }) = stacked {
            let axes = [("component", rows.as_slice()), ("position", labels.tokens.as_slice())];
            side_by_side(page, &[(title.to_owned(), maps)], axes, Meaning::of(&found.demo.exact));
        }
    }
    let by_position = BLOCKS.map(|(c, title)| (NodeKind::by_position(c), title));
    errors(page, found, &by_position);

    page.section(
        "Parts of heads",
        "The corrupted run takes one output, query, key, value or pattern of one head from the clean run: first at all \
         positions together, then at each position. Exact effects on the left, attributions on the right, on one color \
         scale, in shares of the clean-corrupted difference.",
    );
    for (text, by) in [("At all positions:", By::All), ("By position:", By::Position)] {
        let kinds = HEAD_PARTS.map(|(component, title)| (NodeKind { component, by }, title));
        page.text(text);
        maps_beside(page, found, labels, &kinds);
        errors(page, found, &kinds);
    }
}

/// Rows of several kinds of nodes by position, with their names: exact effects and attributions,
/// `[row, position]`.
struct Stacked {
    rows: Vec<String>,
    maps: [Array2<f32>; 2],
}

impl Stacked {
    fn new(rows: Vec<(String, [Array1<f32>; 2])>) -> Option<Self> {
        let width = rows.first()?.1[0].len();
        let map = |which: usize| Array2::from_shape_fn((rows.len(), width), |(row, pos)| rows[row].1[which][pos]);
        let maps = [map(0), map(1)];
        Some(Self { rows: rows.into_iter().map(|(name, _)| name).collect(), maps })
    }
}

/// Returns the exact effects and the attributions of a component by position, `[layer, position]`.
fn both(found: &Found, component: Component) -> Option<[Array2<f32>; 2]> {
    let kind = NodeKind::by_position(component);
    Some([mean_map(found.demo.exact_of(kind)?), mean_map(found.demo.estimate(kind)?)])
}

/// Returns one layer of both maps.
fn layer(maps: &[Array2<f32>; 2], layer: usize) -> [Array1<f32>; 2] {
    maps.each_ref().map(|map| map.row(layer).to_owned())
}

/// Returns the residual stream at all points.
fn residual(found: &Found) -> Option<Stacked> {
    let (pre, post) = (both(found, Component::ResidPre)?, both(found, Component::ResidPost)?);
    let mid = both(found, Component::ResidMid);
    let layers = pre[0].nrows();
    let mut rows = Vec::new();
    for at in 0..layers {
        rows.push((format!("resid_pre:L{at}"), layer(&pre, at)));
        rows.extend(mid.as_ref().map(|mid| (format!("resid_mid:L{at}"), layer(mid, at))));
    }
    rows.push(("end".to_owned(), layer(&post, layers - 1)));
    Stacked::new(rows)
}

/// Returns the embeddings and the output of each attention and each MLP.
fn outputs(source: &Source, found: &Found) -> Option<Stacked> {
    let embed = both(found, Component::ResidPre)?;
    let (attention, mlp) = (both(found, Component::AttnOut)?, both(found, Component::MlpOut)?);
    // Before block 0 the residual streams of both runs differ only in the token embeddings: the
    // position embeddings are the same.
    let mut rows = vec![("embed".to_owned(), layer(&embed, 0))];
    if !source.config.is_rotary() {
        rows.push(("pos_embed".to_owned(), layer(&embed, 0).map(|row| row.mapv(|_| 0.0))));
    }
    for at in 0..attention[0].nrows() {
        rows.push((format!("attn_out:L{at}"), layer(&attention, at)));
        rows.push((format!("mlp_out:L{at}"), layer(&mlp, at)));
    }
    Stacked::new(rows)
}

/// Adds maps of the exact effects and of the attributions, one row per kind.
fn maps_beside(page: &mut Page, found: &Found, labels: &Labels, kinds: &[(NodeKind, &str)]) {
    let axes = match kinds.first().map(|(kind, _)| kind.by) {
        Some(By::All) => labels.by_head(),
        _ => labels.heads_by_position(),
    };
    let demo = &found.demo;
    let maps = |(kind, title): &(NodeKind, &str)| {
        let map = |outcome: &Outcome| Some(mean_map(outcome.effects.iter().find(|e| e.kind == *kind)?));
        Some(((*title).to_owned(), [map(&demo.exact)?, map(&demo.attribution)?]))
    };
    let all: Vec<_> = kinds.iter().filter_map(maps).collect();
    side_by_side(page, &all, axes, Meaning::of(&demo.exact));
}

/// Adds scatter plots of attributions and exact effects, one per kind, and the nodes with the
/// largest errors.
fn errors(page: &mut Page, found: &Found, kinds: &[(NodeKind, &str)]) {
    let pairs = &found.sets[0].pairs;
    let scatter = |(title, agreement, effects): (&str, &Agreement, &Effects)| {
        let point = |n: &NodeError| Point {
            x: n.exact,
            y: n.estimate,
            layer: n.place[0],
            name: names::of_node(effects, &n.place, pairs),
        };
        let points: Vec<_> = agreement.errors.iter().map(point).collect();
        let r = agreement.pearson.map_or("none".to_owned(), |r| format!("{r:.3}"));
        charts::scatter(&format!("{title} (Pearson {r})"), &points, ["exact effect (share)", "attribution (share)"])
    };
    let (compared, without): (Vec<_>, Vec<_>) =
        agreements(found, kinds).partition(|(_, agreement, _)| !agreement.errors.is_empty());
    if !without.is_empty() {
        let titles: Vec<&str> = without.iter().map(|(title, ..)| *title).collect();
        page.text(&format!("Without a plot, because every effect and every attribution is 0: {}.", titles.join(", ")));
    }
    if !compared.is_empty() {
        page.row(compared.into_iter().map(scatter).collect());
        worst_nodes(page, found, kinds);
    }
}

/// Adds a table of the nodes with the largest attribution errors, for each kind.
fn worst_nodes(page: &mut Page, found: &Found, kinds: &[(NodeKind, &str)]) {
    let (demo, pairs) = (&found.demo, &found.sets[0].pairs);
    let of_heads = kinds.iter().any(|(kind, _)| kind.is_of_heads());
    let mut header = vec!["kind", "node", "exact (share)", "attribution (share)", "error (share)"];
    if of_heads {
        header.push("attention entropy (0 to 1)");
    }
    let mut rows = Vec::new();
    for (title, agreement, effects) in agreements(found, kinds) {
        for node in agreement.errors.iter().take(WORST) {
            let mut row = vec![
                title.to_owned(),
                names::of_node(effects, &node.place, pairs),
                number(node.exact),
                number(node.estimate),
                signed(node.error()),
            ];
            if of_heads {
                let entropy = demo.entropy_at(pairs, agreement.kind, &node.place);
                row.push(entropy.map_or("-".to_owned(), |e| format!("{e:.3}")));
            }
            rows.push(row);
        }
    }
    page.text("The nodes for which attribution differs most from the exact effect:");
    page.table(&header, rows);
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
