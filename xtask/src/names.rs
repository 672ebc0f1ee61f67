//! What nodes are called in tables and charts.

use rewire_analysis::Effects;
use rewire_tasks::PromptPairs;

use crate::output::{head_name, numbered, token_labels};

/// The names along one axis of a kind's effects.
pub(crate) fn of_axis(axis: &str, n: usize, pairs: &PromptPairs) -> Vec<String> {
    match axis {
        "layer" => numbered("L", n),
        "head" => numbered("H", n),
        "neuron" => numbered("N", n),
        // Positions carry the tokens of the first prompt, where it is as long as the longest.
        _ if pairs.labels(0).len() == n => token_labels(pairs.labels(0)),
        _ => numbered("", n),
    }
}

/// What a node is called, by its index along the axes of its kind, layer first: `L9H6`, `L9H6 @ to_14`, `L3 N17`.
pub(crate) fn of_node(effects: &Effects, place: &[usize], pairs: &PromptPairs) -> String {
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

/// An input of a head, as the axis of head paths has them.
pub(crate) const INPUTS: [&str; 3] = ["query", "key", "value"];
