//! Names of the places of a table: the label of each index of an axis, the token at a position, and
//! the name of a node.

use std::collections::BTreeMap;

use rewire_analysis::Align;
use rewire_tasks::PromptPairs;

use crate::labels::Labels;
use crate::names::{INPUTS, head_name, numbered, of_axis};
use crate::tables::Table;

/// The suffix of axes whose positions are counted from END.
const FROM_END: &str = "_from_end";

/// The labels of all sets of prompts of a run.
pub(crate) struct AxisLabels<'a> {
    /// The labels of the only set.
    only: Option<SetLabels<'a>>,
    /// The labels of several sets, by name. The name of a table begins with its set's name.
    sets: BTreeMap<&'a str, SetLabels<'a>>,
}

/// The labels of one set of prompts.
pub(crate) struct SetLabels<'a> {
    pairs: &'a PromptPairs,
    /// The token at each position, if it is the same in all clean prompts that have the position.
    from_start: Vec<Option<String>>,
    /// The same, with positions counted from END.
    from_end: Vec<Option<String>>,
}

impl<'a> AxisLabels<'a> {
    /// Collects the tokens that all prompts of a set have in common.
    pub(crate) fn new(labels: &'a Labels<'a>) -> Self {
        let sets = match labels {
            Labels::Sets(sets) => {
                let set = |(name, labels): (&'a String, &'a Labels<'a>)| {
                    Some((name.as_str(), SetLabels::new(labels.pairs()?)))
                };
                sets.iter().filter_map(set).collect()
            }
            _ => BTreeMap::new(),
        };
        Self { only: labels.pairs().map(SetLabels::new), sets }
    }

    /// Returns the labels of the prompts of the table `name`, if its prompts are known.
    pub(crate) fn of_table(&self, name: &str) -> Option<&SetLabels<'a>> {
        let of_set = || self.sets.get(name.split('/').next().unwrap_or(name));
        self.only.as_ref().or_else(of_set)
    }
}

impl<'a> SetLabels<'a> {
    fn new(pairs: &'a PromptPairs) -> Self {
        Self { pairs, from_start: common(pairs, |_| {}), from_end: common(pairs, |labels| labels.reverse()) }
    }

    /// Returns the token at an index of an axis of positions, if it is the same in all prompts.
    pub(crate) fn common_token(&self, axis: &str, index: usize) -> Option<&str> {
        let tokens = if axis.ends_with(FROM_END) { &self.from_end } else { &self.from_start };
        tokens.get(index)?.as_deref()
    }

    /// Returns the token at the marked position of each clean prompt, if positions are marked.
    pub(crate) fn marked_tokens(&self) -> Option<Vec<String>> {
        let marks = self.pairs.marked_positions()?;
        Some(marks.iter().enumerate().map(|(pair, &mark)| self.pairs.labels(pair)[mark].clone()).collect())
    }

    /// Returns the tokens of one prompt along an axis of positions.
    pub(crate) fn tokens_of_prompt(&self, axis: &str, prompt: usize) -> Vec<String> {
        let mut tokens = if prompt < self.pairs.len() { self.pairs.labels(prompt) } else { Vec::new() };
        if axis.ends_with(FROM_END) {
            tokens.reverse();
        }
        tokens
    }
}

/// Returns the token at each position that all prompts with this position have in common. `arrange`
/// arranges the tokens of a prompt.
fn common(pairs: &PromptPairs, arrange: impl Fn(&mut Vec<String>)) -> Vec<Option<String>> {
    // None: no prompt so far has the position. Some(None): prompts have different tokens there.
    let mut found: Vec<Option<Option<String>>> = vec![None; pairs.width()];
    for prompt in 0..pairs.len() {
        let mut labels = pairs.labels(prompt);
        arrange(&mut labels);
        for (found, label) in found.iter_mut().zip(labels) {
            match found {
                None => *found = Some(Some(label)),
                Some(seen) if seen.as_ref() != Some(&label) => *seen = None,
                Some(_) => {}
            }
        }
    }
    found.into_iter().map(Option::flatten).collect()
}

/// Returns whether an axis runs over positions: `pos`, `dest` or `src`, from either end.
pub(crate) fn is_of_positions(axis: &str) -> bool {
    ["pos", "dest", "src"].contains(&axis.trim_end_matches(FROM_END))
}

/// Returns the label of each index of an axis of a table: `L3`, `H7`, `query`, ` to_14`, `pos 15`,
/// `END-1`, `mlp_out:L3`. Axes whose labels would be their indices have none: prompts, neurons, and
/// others.
pub(crate) fn labels(table: &Table, axis: &str, set: Option<&SetLabels>) -> Option<Vec<String>> {
    let n = length(table, axis);
    match (axis, set) {
        ("layer" | "layer_end" | "layer_start", _) => Some(numbered("L", n)),
        ("head" | "head_end" | "head_start", _) => Some(numbered("H", n)),
        ("input", _) => Some(INPUTS.iter().take(n).map(|input| (*input).to_owned()).collect()),
        ("node" | "edge", _) if table.nodes.len() == n => Some(table.nodes.clone()),
        ("writer", _) => table.edges.map(|graph| (0..n).map(|i| graph.writer(i).to_string()).collect()),
        ("reader", _) => table.edges.map(|graph| (0..n).map(|i| graph.reader(i).to_string()).collect()),
        (axis, Some(set)) if is_of_positions(axis) => Some(of_axis(axis, n, set.pairs)),
        (axis, None) if axis.ends_with(FROM_END) => Some((0..n).map(|i| Align::End.position_name(i)).collect()),
        (axis, None) if is_of_positions(axis) => Some(numbered("pos ", n)),
        _ => None,
    }
}

/// Returns the index along an axis, if the table has the axis.
pub(crate) fn at(table: &Table, axis: &str, index: &[usize]) -> Option<usize> {
    table.axes.iter().position(|name| name == axis).map(|position| index[position])
}

/// Returns whether a table has a number at an index. Where no edge joins a writer to a reader, a
/// table of edges has none.
pub(crate) fn is_present(table: &Table, index: &[usize]) -> bool {
    match (table.edges, at(table, "writer", index), at(table, "reader", index)) {
        (Some(graph), Some(writer), Some(reader)) => writer < graph.n_writers_to(reader),
        _ => true,
    }
}

/// Returns the number of numbers that a table has.
pub(crate) fn n_numbers(table: &Table) -> usize {
    match table.edges {
        Some(graph) => length(table, "prompt").max(1) * graph.n_edges(),
        None => table.values.len(),
    }
}

/// Returns the length of an axis, or 0.
pub(crate) fn length(table: &Table, axis: &str) -> usize {
    at(table, axis, table.values.shape()).unwrap_or(0)
}

/// Returns the name of the node at an index of a table, in the notation of the command line:
/// `L9H6`, `L3N17`, `L3@14`, `L9H6@14<-3`, and `L0H1 -> L2H3 query` for a head edge. An edge has
/// its name in the edge graph, `a5.h9->a8.h6<v>`. `None` for numbers that belong to no node or
/// edge.
pub(crate) fn node_name(table: &Table, index: &[usize]) -> Option<String> {
    let at = |axis: &str| at(table, axis, index);
    if let (Some(graph), Some(writer), Some(reader)) = (table.edges, at("writer"), at("reader")) {
        return Some(graph.edge([writer, reader]).to_string());
    }
    let mut name = match (at("node").or(at("edge")), at("layer"), at("layer_end"), at("layer_start")) {
        (Some(node), ..) => table.nodes.get(node)?.clone(),
        (None, Some(layer), ..) => match (at("head"), at("neuron")) {
            (Some(head), _) => head_name(layer, head),
            (None, Some(neuron)) => format!("L{layer}N{neuron}"),
            (None, None) => format!("L{layer}"),
        },
        (None, None, Some(end), Some(start)) => {
            let input = at("input").and_then(|input| INPUTS.get(input)).copied().unwrap_or_default();
            let [end, start] = [head_name(end, at("head_end")?), head_name(start, at("head_start")?)];
            format!("{start} -> {end} {input}")
        }
        _ => return None,
    };
    for (axis, mark) in [("pos", "@"), ("dest", "@"), ("src", "<-")] {
        if let Some(position) = at(axis) {
            name += &format!("{mark}{position}");
        } else if let Some(position) = at(&format!("{axis}{FROM_END}")) {
            name += &format!("{mark}{}", Align::End.position_name(position));
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};
    use rewire_tasks::PromptPair;

    use super::*;

    fn pairs(prompts: &[&[u32]]) -> PromptPairs {
        let pair = |clean: &&[u32]| PromptPair {
            clean: clean.to_vec(),
            corrupted: clean.to_vec(),
            answers: vec![0],
            wrong_answers: vec![1],
        };
        let pairs = PromptPairs::new(prompts.iter().map(pair).collect()).unwrap();
        pairs.with_token_labels(|token| format!(" t{token}"))
    }

    fn table(axes: &[&str], shape: &[usize]) -> Table {
        Table {
            axes: axes.iter().map(|axis| (*axis).to_owned()).collect(),
            values: ArrayD::zeros(IxDyn(shape)),
            ..Table::default()
        }
    }

    #[test]
    fn positions_have_a_token_only_where_all_prompts_agree() {
        let pairs = pairs(&[&[1, 2, 3, 4], &[1, 5, 4]]);
        let labels_of = Labels::Each(&pairs);
        let all = AxisLabels::new(&labels_of);
        let set = all.of_table("head_z@position");
        let of = |axis: &str, n: usize, set| labels(&table(&[axis], &[n]), axis, set);
        assert_eq!(of("pos", 4, set).unwrap(), [" t1_0", "pos 1", "pos 2", " t4_3"]);
        assert_eq!(of("pos_from_end", 4, set).unwrap(), [" t4_END", "END-1", "END-2", " t1_END-3"]);
        assert_eq!(of("dest", 2, None).unwrap(), ["pos 0", "pos 1"]);
        assert_eq!(of("src_from_end", 2, None).unwrap(), ["END", "END-1"]);
        assert_eq!(of("head", 2, set).unwrap(), ["H0", "H1"]);
        assert_eq!(of("input", 3, set).unwrap(), ["query", "key", "value"]);
        assert_eq!(of("prompt", 2, set), None);
        let set = set.unwrap();
        let common = |axis| (0..4).map(|i| set.common_token(axis, i)).collect::<Vec<_>>();
        assert_eq!(common("pos"), [Some(" t1"), None, None, Some(" t4")]);
        assert_eq!(common("pos_from_end"), [Some(" t4"), None, None, Some(" t1")]);
        assert_eq!(set.tokens_of_prompt("src", 1), [" t1", " t5", " t4"]);
        assert_eq!(set.tokens_of_prompt("src_from_end", 1), [" t4", " t5", " t1"]);
        assert_eq!(set.tokens_of_prompt("src", 2), Vec::<String>::new());
    }

    #[test]
    fn tables_of_several_sets_have_the_labels_of_their_set() {
        let [first, second] = [pairs(&[&[1, 2]]), pairs(&[&[3, 4]])];
        let sets = [("demo", Labels::Each(&first)), ("generated", Labels::Each(&second))];
        let labels_of = Labels::Sets(sets.map(|(name, labels)| (name.to_owned(), labels)).into());
        let all = AxisLabels::new(&labels_of);
        let token = |table: &str| all.of_table(table).and_then(|set| set.common_token("pos", 0).map(str::to_owned));
        assert_eq!(token("generated/activation-patching/head_z"), Some(" t3".to_owned()));
        assert_eq!(token("demo/head_edges"), Some(" t1".to_owned()));
        assert_eq!(token("other"), None);
    }

    #[test]
    fn nodes_are_named_as_on_the_command_line() {
        let named = |axes: &[&str], index: &[usize]| node_name(&table(axes, &vec![20; axes.len()]), index);
        let names = [
            named(&["prompt", "layer", "head"], &[4, 9, 6]),
            named(&["layer", "neuron"], &[3, 17]),
            named(&["layer", "pos"], &[3, 14]),
            named(&["layer", "pos_from_end"], &[3, 2]),
            named(&["layer", "head", "dest", "src"], &[9, 6, 14, 3]),
        ];
        assert_eq!(names.map(Option::unwrap), ["L9H6", "L3N17", "L3@14", "L3@END-2", "L9H6@14<-3"]);
        let edge = table(&["layer_end", "head_end", "input", "layer_start", "head_start", "pos"], &[3; 6]);
        assert_eq!(node_name(&edge, &[2, 2, 0, 0, 1, 1]).unwrap(), "L0H1 -> L2H2 query@1");
        let listed = Table { nodes: vec!["mlp_out:L3".to_owned()], ..table(&["node", "pos"], &[1, 2]) };
        assert_eq!(node_name(&listed, &[0, 1]).unwrap(), "mlp_out:L3@1");
        assert_eq!(named(&["curve", "place"], &[0, 1]), None);
    }
}
