//! Names of nodes in tables and charts.

use std::collections::BTreeSet;

use ndarray::ArrayD;
use rewire_analysis::Effects;
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
    let label = |(i, token): (usize, &String)| match token.as_str() {
        "<|endoftext|>" => format!("BOS_{i}"),
        token => format!("{}_{i}", token.escape_debug()),
    };
    labels.iter().enumerate().map(label).collect()
}

/// Returns the names along one axis of a kind's effects.
#[must_use]
pub fn of_axis(axis: &str, n: usize, pairs: &PromptPairs) -> Vec<String> {
    match axis {
        "layer" => numbered("L", n),
        "head" => numbered("H", n),
        "neuron" => numbered("N", n),
        // Positions have the tokens of the first prompt, if it is as long as the longest prompt.
        _ if pairs.labels(0).len() == n => token_labels(&pairs.labels(0)),
        _ => numbered("", n),
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

/// Returns ascending numbers as text, with neighbors as ranges: `4, 7-9`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// Returns the name of a node, from its index along the axes of its kind, layer first: `L9H6`,
/// `L9H6 @ to_14`, `L3 N17`.
///
/// # Panics
/// If the index is outside the effects.
#[must_use]
pub fn of_node(effects: &Effects, place: &[usize], pairs: &PromptPairs) -> String {
    let axes = effects.axis_names();
    let width = pairs.width();
    let token = |position: usize| of_axis("pos", width, pairs)[position].clone();
    let mut name = match axes.get(2) {
        Some(&"head") => head_name(place[0], place[1]),
        Some(&"neuron") => format!("L{} N{}", place[0], place[1]),
        _ => format!("L{}", place[0]),
    };
    for (axis, &at) in axes[1..].iter().zip(place) {
        match *axis {
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
}
