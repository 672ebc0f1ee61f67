//! Nodes and receivers as Python names them.

use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::patching::NodeList;
use rewire_analysis::path::Receiver;
use rewire_input::{did_you_mean, quoted};
use rewire_model::TransformerConfig;
use rewire_tasks::PromptPairs;

use crate::failure::Failure;

/// The nodes of an analysis.
pub(crate) enum Nodes {
    /// All nodes of these kinds.
    Kinds(Vec<NodeKind>),
    /// Single nodes by their names. Their positions are known once the prompts are.
    Single(Vec<String>, By),
}

/// The nodes of an analysis on known prompts.
pub(crate) enum Found {
    Kinds(Vec<NodeKind>),
    List(NodeList),
}

impl Nodes {
    /// Reads names such as `head_z` or `head_z:L3H7@end`, and the division of nodes.
    ///
    /// # Errors
    /// If a name is unknown, or if kinds and single nodes are mixed.
    pub(crate) fn read(names: &[String], by: &str) -> Result<Self, Failure> {
        let by = division(by)?;
        let kinds: Vec<Option<Component>> = names.iter().map(|name| name.trim().parse().ok()).collect();
        match (kinds.iter().position(Option::is_some), kinds.iter().position(Option::is_none)) {
            (None, None) => Err(Failure::Argument("nodes is empty; name a kind such as head_z".to_owned())),
            (Some(_), None) => {
                Ok(Nodes::Kinds(kinds.into_iter().flatten().map(|component| NodeKind { component, by }).collect()))
            }
            (None, Some(_)) => {
                for name in names {
                    check_single(name, by)?;
                }
                Ok(Nodes::Single(names.to_vec(), by))
            }
            (Some(kind), Some(single)) => Err(Failure::Argument(format!(
                "nodes names all nodes of {} and the single node {}; ask for them in two calls",
                names[kind], names[single]
            ))),
        }
    }

    /// Returns the nodes in these prompts.
    pub(crate) fn of(self, pairs: &PromptPairs) -> Result<Found, Failure> {
        match self {
            Nodes::Kinds(kinds) => Ok(Found::Kinds(kinds)),
            Nodes::Single(names, by) => {
                let nodes = names.iter().map(|name| single(name, by, pairs)).collect::<Result<_, _>>()?;
                Ok(Found::List(NodeList::divided(nodes, if by == By::Marked { By::All } else { by })))
            }
        }
    }

    /// Returns the kinds.
    ///
    /// # Errors
    /// If single nodes were named, which `method` does not take.
    pub(crate) fn kinds(self, method: &str) -> Result<Vec<NodeKind>, Failure> {
        match self {
            Nodes::Kinds(kinds) => Ok(kinds),
            Nodes::Single(names, _) => Err(Failure::Argument(format!(
                "{method} takes kinds of nodes only, such as head_z, and {} is no kind",
                quoted(&names[0])
            ))),
        }
    }
}

fn division(by: &str) -> Result<By, Failure> {
    match by {
        "all" => Ok(By::All),
        "position" => Ok(By::Position),
        "cell" => Ok(By::Cell),
        "marked" => Ok(By::Marked),
        other => Err(Failure::Argument(format!(
            "unknown by={}; use all, position, cell or marked{}",
            quoted(other),
            did_you_mean(other, ["all", "position", "cell", "marked"])
        ))),
    }
}

/// Splits a name into the part before `@`, and the positions if they depend on the prompts.
fn split(name: &str) -> (&str, Option<&'static str>) {
    match name.split_once('@') {
        Some((place, at)) if at.trim().eq_ignore_ascii_case("end") => (place.trim(), Some("end")),
        Some((place, at)) if at.trim().eq_ignore_ascii_case("marked") => (place.trim(), Some("marked")),
        _ => (name, None),
    }
}

fn check_single(name: &str, by: By) -> Result<(), Failure> {
    split(name).0.parse::<Node>().map_err(Failure::argument)?;
    match by != By::All && name.contains('@') {
        true => Err(Failure::Argument(format!("{name} names its position, and `by` divides it; remove one of them"))),
        false => Ok(()),
    }
}

fn single(name: &str, by: By, pairs: &PromptPairs) -> Result<Node, Failure> {
    let (place, at) = split(name);
    let node: Node = place.parse().map_err(Failure::argument)?;
    let at = if by == By::Marked { Some("marked") } else { at };
    let node = match at {
        Some(at) => node.at(each(at, name, pairs)?),
        None => node,
    };
    let position = match node.positions {
        Positions::One(position) | Positions::Cell { dest: position, .. } => position,
        _ => return Ok(node),
    };
    match (0..pairs.len()).find(|&prompt| position > pairs.end(prompt)) {
        Some(prompt) => Err(Failure::Argument(format!(
            "{name}: prompt {prompt} (counted from 0) has only {} tokens; use @end for prompts of different lengths",
            pairs.end(prompt) + 1
        ))),
        None => Ok(node),
    }
}

/// Returns one position per prompt: its END, or the marked one.
fn each(at: &str, name: &str, pairs: &PromptPairs) -> Result<Positions, Failure> {
    if at == "end" {
        return match (0..pairs.len()).any(|pair| pairs.begun(pair) > 0) {
            false => Ok(Positions::Each(pairs.ends())),
            true => Err(Failure::Argument(format!(
                "{name}: answers of several tokens are read at several positions; leave out @end or give a number"
            ))),
        };
    }
    let marks = pairs.marked_positions().map(<[usize]>::to_vec);
    let none = || Failure::Argument(format!("{name}: the pairs mark no position; give `position` for each pair"));
    Ok(Positions::Each(marks.ok_or_else(none)?))
}

/// Returns the receiver of a name: `logits`, or `head_q:L3H7`, with `@14`, `@end` or `@marked`.
pub(crate) fn receiver(name: &str, pairs: &PromptPairs, config: &TransformerConfig) -> Result<Receiver, Failure> {
    let (place, at) = name.split_once('@').unwrap_or((name, ""));
    let receiver: Receiver = match place.trim() {
        "logits" => Receiver::logits(config),
        place => place.parse().map_err(Failure::argument)?,
    };
    let positions = match at.trim().to_ascii_lowercase().as_str() {
        "" => Positions::All,
        at @ ("end" | "marked") => each(at, name, pairs)?,
        number => {
            let refused =
                |_| Failure::Argument(format!("{name}: no position {}; give a number, end or marked", quoted(number)));
            Positions::One(number.parse().map_err(refused)?)
        }
    };
    Ok(receiver.at(positions))
}
