//! Single nodes, as `--nodes head_z:L0H0` names them.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use rewire_analysis::node::{By, Node, NodeKind, ParseNodeError, Positions};
use rewire_analysis::patching::NodeList;
use rewire_tasks::PromptPairs;

use super::at::At;

/// A single node. Its positions are known once the prompts are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SingleNode {
    /// The node at all positions.
    node: Node,
    at: At,
}

impl FromStr for SingleNode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, at) = At::split(text)?;
        Ok(Self { node: name.parse().map_err(|error: ParseNodeError| error.to_string())?, at })
    }
}

impl fmt::Display for SingleNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.node, self.at)
    }
}

/// The single nodes of a sweep.
pub(super) enum SingleNodes {
    /// Nodes that the command names, each of which `--by` divides.
    Named { nodes: Vec<SingleNode>, by: By },
    /// Nodes of these prompts.
    List(NodeList),
}

impl SingleNodes {
    /// Creates the list of named nodes. Refuses a node that names its positions although `--by`
    /// divides it.
    pub(super) fn new(mut nodes: Vec<SingleNode>, by: By) -> anyhow::Result<Self> {
        if let Some(node) = nodes.iter().find(|node| by != By::All && node.at != At::Everywhere) {
            bail!("--nodes {node} names its positions; remove them or --by");
        }
        if by == By::Marked {
            nodes.iter_mut().for_each(|node| node.at = At::Marked);
            return Ok(Self::Named { nodes, by: By::All });
        }
        Ok(Self::Named { nodes, by })
    }

    /// Returns the kinds of the nodes, each once.
    pub(super) fn kinds(&self) -> Vec<NodeKind> {
        let mut kinds: Vec<NodeKind> = match self {
            Self::Named { nodes, .. } => nodes.iter().map(|single| NodeKind::all(single.node.component)).collect(),
            Self::List(list) => list.nodes().iter().map(|node| NodeKind::all(node.component)).collect(),
        };
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Returns the names of the nodes and how they are divided, for the identity of the sweep.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Named { nodes, by } => {
                let suffix = match by {
                    By::All => "",
                    By::Position => " by position",
                    By::Cell => " by cell",
                    By::Marked => " by mark",
                };
                nodes.iter().map(|node| format!("{node}{suffix}")).collect()
            }
            Self::List(list) => list.nodes().iter().map(ToString::to_string).collect(),
        }
    }

    /// Returns the nodes in these prompts. Refuses a position that a prompt does not have.
    pub(super) fn list(&self, pairs: &PromptPairs) -> anyhow::Result<NodeList> {
        let (named, by) = match self {
            Self::Named { nodes, by } => (nodes, *by),
            Self::List(list) => return Ok(list.clone()),
        };
        let mut nodes = Vec::with_capacity(named.len());
        for single in named {
            let positions = single.at.positions(pairs, single)?;
            let at = match positions {
                Positions::One(position) => Some(position),
                Positions::Cell { dest, .. } => Some(dest),
                Positions::All | Positions::Each(_) => None,
            };
            // A position that no prompt has is refused like a head that the model does not have.
            let missing = at.filter(|at| *at < pairs.width());
            let missing = missing.and_then(|at| (0..pairs.len()).find(|&prompt| at > pairs.end(prompt)));
            if let Some(prompt) = missing {
                bail!(
                    "--nodes {single}: prompt {prompt} (counted from 0) has only {} tokens; use @end, or --by position \
                     without @, for prompts of different lengths",
                    pairs.end(prompt) + 1
                );
            }
            nodes.push(single.node.clone().at(positions));
        }
        Ok(NodeList::divided(nodes, by))
    }
}
