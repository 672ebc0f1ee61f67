//! Names of nodes in tables and charts.

use std::collections::BTreeSet;

use ndarray::ArrayD;
use rewire_analysis::node::{Node, Positions};
use rewire_analysis::{Align, Effects};
use rewire_tasks::PromptPairs;

/// Returns the name of a head, such as `L9H6`.
#[must_use]
pub fn head_name(layer: usize, head: usize) -> String {
    format!("L{layer}H{head}")
}

/// Returns the names `prefix0`, `prefix1`, ..
#[must_use]
pub fn numbered(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}{i}")).collect()
}

/// Returns a number and its noun, with an `s` unless the number is 1: `1 pair`, `2 pairs`.
#[must_use]
pub fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Returns distinct token labels: the token and its position. The token in front of a prompt is
/// labeled BOS, to save space.
#[must_use]
pub fn token_labels(labels: &[String]) -> Vec<String> {
    labels.iter().enumerate().map(|(i, token)| token_label(token, &i.to_string())).collect()
}

/// Returns the label of a token at a position.
fn token_label(token: &str, position: &str) -> String {
    match token {
        "<|endoftext|>" => format!("BOS_{position}"),
        token => format!("{}_{position}", printable(token)),
    }
}

/// Returns a token with the characters escaped that are not printable, and the backslash.
#[must_use]
pub fn printable(token: &str) -> String {
    let mut shown = String::with_capacity(token.len());
    for character in token.chars() {
        match character {
            '"' | '\'' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// Returns the name of a node of a list. Positions that differ between prompts are `@end` if they
/// are the last ones and not the marked ones, and `@marked` otherwise.
#[must_use]
pub fn of_listed(node: &Node, pairs: &PromptPairs) -> String {
    match &node.positions {
        Positions::Each(each) if *each == pairs.ends() && pairs.marked_positions() != Some(each.as_slice()) => {
            format!("{}@end", node.clone().at(Positions::All))
        }
        _ => node.to_string(),
    }
}

/// Returns the names along one axis of a kind's effects. An axis of nodes has numbers; [`along`]
/// has their names.
#[must_use]
pub fn of_axis(axis: &str, n: usize, pairs: &PromptPairs) -> Vec<String> {
    match axis {
        "layer" => numbered("L", n),
        "head" => numbered("H", n),
        "neuron" => numbered("N", n),
        "node" => numbered("node ", n),
        axis => (0..n).map(|position| of_position(align_of(axis), position, pairs)).collect(),
    }
}

/// Returns the names along one axis of [`Effects::values`], counted with the prompts as axis 0.
///
/// # Panics
/// If the effects have no such axis.
#[must_use]
pub fn along(effects: &Effects, axis: usize, pairs: &PromptPairs) -> Vec<String> {
    match effects.axis_names()[axis] {
        "node" => effects.nodes.iter().map(|node| of_listed(node, pairs)).collect(),
        name => of_axis(name, effects.values.shape()[axis], pairs),
    }
}

fn align_of(axis: &str) -> Align {
    if axis.ends_with("_from_end") { Align::End } else { Align::Start }
}

/// Returns the name of a position: the token and the position, such as `to_14` or `to_END-3`, if
/// all clean prompts that have the position hold the same token there, and else `pos 14` or
/// `END-3`.
#[must_use]
pub fn of_position(align: Align, position: usize, pairs: &PromptPairs) -> String {
    let index = |length: usize| match align {
        Align::Start => (position < length).then_some(position),
        Align::End => length.checked_sub(position + 1),
    };
    let mut found = pairs.pairs().iter().enumerate().filter_map(|(i, pair)| Some((i, index(pair.clean.len())?)));
    let name = align.position_name(position);
    let first = found.next();
    let label = |(pair, index): (usize, usize)| pairs.labels(pair)[index].clone();
    let token = |(pair, index): (usize, usize)| pairs.pairs()[pair].clean[index];
    // Labels of positions can be the same where tokens differ: the name of a role.
    let mut is_shared = |first: (usize, usize)| {
        found.find(|other| token(*other) != token(first)).is_none_or(|other| label(other) == label(first))
    };
    match (first.filter(|first| is_shared(*first)), align) {
        (Some(first), _) => token_label(&label(first), &name),
        (None, Align::Start) => format!("pos {name}"),
        (None, Align::End) => name,
    }
}

/// Returns a note on columns that are positions. It lists positions that hold different tokens, and
/// positions that only some prompts have. Returns `None` if every position holds the same token in
/// all prompts.
#[must_use]
pub fn positions_note(pairs: &PromptPairs) -> Option<String> {
    let labels = |position: usize| pairs.pairs().iter().filter_map(move |pair| pair.clean.get(position));
    let differing: Vec<usize> =
        (0..pairs.width()).filter(|&position| labels(position).collect::<BTreeSet<_>>().len() > 1).collect();
    let shorter: Vec<usize> = (0..pairs.width()).filter(|&position| labels(position).count() < pairs.len()).collect();
    let mut note = String::new();
    if !differing.is_empty() {
        note += &format!(
            "Positions {} (counted from 0) do not hold the same token in every clean prompt: a mean at such a position is over different words. ",
            ranges(&differing)
        );
    }
    if let (Some(first), Some(last)) = (shorter.first(), shorter.last()) {
        let range = if first == last {
            format!("Position {first} exists")
        } else {
            format!("Positions {first} to {last} exist")
        };
        let n: Vec<String> = shorter.iter().map(|&position| labels(position).count().to_string()).collect();
        note += &format!("{range} in {} of {} prompts: each mean is over these prompts.", n.join(", "), pairs.len());
    }
    (!note.is_empty()).then(|| note.trim_end().to_owned())
}

/// Returns a note on columns that are positions, counted from this end of the prompts; see
/// [`positions_note`].
#[must_use]
pub fn positions_note_of(align: Align, pairs: &PromptPairs) -> Option<String> {
    if align == Align::Start {
        return positions_note(pairs);
    }
    let mut note = "Positions are counted from END, the last token of each prompt. A position without a token holds \
                    different tokens in different prompts."
        .to_owned();
    let lengths = pairs.lengths();
    let shortest = lengths.iter().copied().min().unwrap_or_default();
    let positions: Vec<usize> = (shortest..pairs.width()).collect();
    if let (Some(first), Some(last)) = (positions.first(), positions.last()) {
        let range = match first == last {
            true => format!("{} exists", align.position_name(*first)),
            false => format!("{} to {} exist", align.position_name(*first), align.position_name(*last)),
        };
        let have = |position: &usize| lengths.iter().filter(|length| *length > position).count().to_string();
        let have: Vec<String> = positions.iter().map(have).collect();
        note +=
            &format!(" {range} in {} of {} prompts: each mean is over these prompts.", have.join(", "), pairs.len());
    }
    Some(note)
}

/// Returns ascending numbers as text, with neighbors as ranges: `4, 7-9`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// Returns the name of a node, from its index along the axes of its effects, layer or node first:
/// `L9H6`, `L9H6 @ to_14`, `L3N17`, `mlp_out:L3`.
///
/// # Panics
/// If the index is outside the effects.
#[must_use]
pub fn of_node(effects: &Effects, place: &[usize], pairs: &PromptPairs) -> String {
    let axes = effects.axis_names();
    let token = |position: usize| of_position(effects.align, position, pairs);
    let mut name = match (effects.nodes.get(place[0]), axes.get(2)) {
        (Some(node), _) => of_listed(node, pairs),
        (None, Some(&"head")) => head_name(place[0], place[1]),
        (None, Some(&"neuron")) => format!("L{}N{}", place[0], place[1]),
        (None, _) => format!("L{}", place[0]),
    };
    for (axis, &at) in axes[1..].iter().zip(place) {
        match axis.trim_end_matches("_from_end") {
            "pos" | "dest" => name += &format!(" @ {}", token(at)),
            "src" => name += &format!(" <- {}", token(at)),
            _ => {}
        }
    }
    name
}

/// Returns the `n` nodes with the largest absolute values, largest first. Each has its index along
/// the axes and its value.
#[must_use]
pub fn largest(values: &ArrayD<f32>, n: usize) -> Vec<(Vec<usize>, f32)> {
    let mut nodes: Vec<(Vec<usize>, f32)> =
        values.indexed_iter().map(|(i, v)| (ndarray::Dimension::slice(&i).to_vec(), *v)).collect();
    nodes.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    nodes.truncate(n);
    nodes
}

/// Names of a head's inputs, in the order of the `input` axis of head edges.
pub const INPUTS: [&str; 3] = ["query", "key", "value"];

#[cfg(test)]
mod tests {
    use rewire_analysis::node::{Component, NodeKind};
    use rewire_tasks::PromptPair;

    use super::*;

    fn pairs(prompts: &[&[u32]]) -> PromptPairs {
        let pair = |clean: &&[u32]| PromptPair {
            clean: clean.to_vec(),
            corrupted: clean.to_vec(),
            answers: vec![0],
            wrong_answers: vec![1],
        };
        PromptPairs::new(prompts.iter().map(pair).collect()).unwrap()
    }

    #[test]
    fn one_thing_is_counted_in_the_singular() {
        assert_eq!(
            [0, 1, 2].map(|n| counted(n, "generated pair")),
            ["0 generated pairs", "1 generated pair", "2 generated pairs"]
        );
    }

    #[test]
    fn positions_at_the_end_are_named_so() {
        let pairs = pairs(&[&[1, 2, 3], &[1, 2]]);
        let node = |each: &[usize]| Node::new(3, Component::HeadZ).unit(7).at(Positions::Each(each.to_vec()));
        assert_eq!(of_listed(&node(&[2, 1]), &pairs), "head_z:L3H7@end");
        assert_eq!(of_listed(&node(&[1, 1]), &pairs), "head_z:L3H7@marked");
        let marked = pairs.with_marked_positions(vec![2, 1]).unwrap();
        assert_eq!(of_listed(&node(&[2, 1]), &marked), "head_z:L3H7@marked");
    }

    #[test]
    fn tokens_are_escaped_only_where_they_are_not_printable() {
        assert_eq!(printable("\"it's\n\\\u{1b}"), "\"it's\\n\\\\\\u{1b}");
    }

    #[test]
    fn the_largest_nodes_are_ranked_by_size_and_ties_keep_their_order() {
        let values = ndarray::arr2(&[[0.1, -0.5], [0.5, 0.0]]).into_dyn();
        assert_eq!(largest(&values, 3), [(vec![0, 1], -0.5), (vec![1, 0], 0.5), (vec![0, 0], 0.1)]);
    }

    #[test]
    fn positions_that_do_not_hold_one_token_are_named() {
        assert_eq!(positions_note(&pairs(&[&[1, 2, 3], &[1, 2, 3]])), None);
        let note = positions_note(&pairs(&[&[1, 2, 3, 4, 9], &[1, 5, 6, 4]])).unwrap();
        assert!(note.starts_with("Positions 1-2 (counted from 0) do not hold the same token"), "{note}");
        assert!(note.ends_with("Position 4 exists in 1 of 2 prompts: each mean is over these prompts."), "{note}");
        let note = positions_note(&pairs(&[&[1, 2, 3, 4], &[1, 2], &[1, 2, 3]])).unwrap();
        assert_eq!(note, "Positions 2 to 3 exist in 2, 1 of 3 prompts: each mean is over these prompts.");
    }

    #[test]
    fn positions_have_the_token_that_all_prompts_share_there() {
        let pairs = pairs(&[&[1, 2, 3, 9], &[1, 5, 9]]).with_token_labels(|token| format!("t{token}"));
        let names = |axis| of_axis(axis, 4, &pairs);
        assert_eq!(names("pos"), ["t1_0", "pos 1", "pos 2", "t9_3"]);
        assert_eq!(names("pos_from_end"), ["t9_END", "END-1", "END-2", "t1_END-3"]);
    }

    #[test]
    fn a_note_says_which_positions_from_the_end_few_prompts_have() {
        let note = |prompts| positions_note_of(Align::End, &pairs(prompts)).unwrap();
        let one = note(&[&[1, 2, 3, 4], &[1, 2, 3]]);
        assert!(one.ends_with("END-3 exists in 1 of 2 prompts: each mean is over these prompts."), "{one}");
        let two = note(&[&[1, 2, 3, 4], &[1, 2], &[1, 2, 3]]);
        assert!(two.contains("END-2 to END-3 exist in 2, 1 of 3 prompts"), "{two}");
        assert!(!note(&[&[1, 2], &[1, 3]]).contains("exist"));
        let from_start = positions_note_of(Align::Start, &pairs(&[&[1, 2], &[1, 3]]));
        assert_eq!(from_start, positions_note(&pairs(&[&[1, 2], &[1, 3]])));
    }

    #[test]
    fn labels_of_positions_name_roles_where_tokens_differ() {
        let pairs = pairs(&[&[1, 2], &[1, 5]]).with_position_labels(vec!["BOS".to_owned(), "S1".to_owned()]);
        assert_eq!(of_axis("pos", 2, &pairs), ["BOS_0", "S1_1"]);
    }

    #[test]
    fn nodes_are_named_by_their_place() {
        let kind = NodeKind::by_position(Component::HeadZ);
        let of_kind = Effects::new(kind, ArrayD::zeros(vec![2, 1, 1, 3]), vec![3, 2]);
        let pairs = pairs(&[&[1, 2, 3], &[1, 3]]).with_token_labels(|token| format!("t{token}"));
        assert_eq!(of_node(&of_kind, &[0, 0, 0], &pairs), "L0H0 @ t1_0");
        assert_eq!(of_node(&of_kind.aligned_at_end(), &[0, 0, 0], &pairs), "L0H0 @ t3_END");
        let nodes: Vec<Node> = vec!["mlp_out:L3".parse().unwrap(), "L9H6".parse().unwrap()];
        let values = ArrayD::zeros(vec![2, 2]);
        let listed = Effects { nodes, ..Effects::new(NodeKind::all(Component::MlpOut), values, vec![3, 2]) };
        assert_eq!(of_node(&listed, &[1], &pairs), "head_z:L9H6");
        assert_eq!(along(&listed, 1, &pairs), ["mlp_out:L3", "head_z:L9H6"]);
    }
}
