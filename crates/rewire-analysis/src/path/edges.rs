//! Head-to-head edges for a graph, each patched alone.

use burn::tensor::backend::Backend;
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::Metric;
use serde::{Deserialize, Serialize};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node};
use crate::patching::groups::GroupOutcome;
use crate::path::ends::Path;
use crate::path::paths::patch_paths;
use crate::path::policy::FreezePolicy;
use crate::path::receiver::{Input, Receiver};
use crate::run::execution::Execution;
use crate::run::question::{Direction, Question};

/// A path from one head's output to another head's queries, keys or values.
///
/// Serde writes each head as the pair `[layer, head]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// The sending head.
    #[serde(with = "pair")]
    pub from: Head,
    /// The receiving head.
    #[serde(with = "pair")]
    pub to: Head,
    /// The input of the receiving head.
    pub input: Input,
}

/// The effects of edges.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadEdges {
    /// The edges, in the order of the outcome's columns.
    pub edges: Vec<Edge>,
    /// Effects, `[prompt, edge]`.
    pub outcome: GroupOutcome,
}

impl Edge {
    /// Returns every edge from one of `heads` to another in a later layer, through each input.
    #[must_use]
    pub fn between(heads: &[Head]) -> Vec<Self> {
        let inputs = [Input::Q, Input::K, Input::V];
        let pairs = heads.iter().flat_map(|&from| heads.iter().map(move |&to| (from, to)));
        let later = pairs.filter(|(from, to)| from.layer < to.layer);
        later.flat_map(|(from, to)| inputs.map(|input| Self { from, to, input })).collect()
    }
}

impl HeadEdges {
    /// Returns the edges whose absolute mean effect is at least `threshold`, largest first.
    #[must_use]
    pub fn pruned(&self, threshold: f32) -> Vec<(Edge, f32)> {
        let mut kept: Vec<(Edge, f32)> = self.edges.iter().copied().zip(self.outcome.mean()).collect();
        kept.retain(|(_, effect)| effect.abs() >= threshold);
        kept.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        kept
    }
}

/// Patches each of these edges alone. The effects are exact.
///
/// A sender's change is propagated once for all of its receivers. With grouped-query attention, an
/// edge into a head's keys or values goes into those of its key/value head, which the group shares.
///
/// # Errors
/// Returns the errors of [`patch_paths`](crate::path::paths::patch_paths), and
/// [`AnalysisError::NoSuchReceiver`] if an edge does not go to a later layer.
pub fn head_edges<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    edges: &[Edge],
    policy: FreezePolicy,
    direction: Direction,
    execution: &Execution,
) -> Result<HeadEdges, AnalysisError> {
    if let Some(Edge { from, to, input }) = edges.iter().find(|edge| edge.from.layer >= edge.to.layer) {
        let receiver = format!("{input}:{to} for {from}");
        return Err(AnalysisError::NoSuchReceiver {
            receiver,
            reason: "the receiver must be in a later layer than the sender",
        });
    }
    let config = model.config();
    let receiver = |edge: &Edge| {
        if edge.to.head >= config.n_heads {
            let (node, heads) =
                (format!("receiver {}:{}", edge.input, edge.to), Some([config.n_layers, config.n_heads]));
            return Err(AnalysisError::OutsideModel {
                node,
                what: "head",
                found: edge.to.head,
                bound: config.n_heads,
                heads,
            });
        }
        Ok(Receiver::of_head(edge.to, edge.input, config))
    };
    let path = |edge: &Edge| -> Result<Path, AnalysisError> {
        Ok(Path {
            senders: vec![Node::new(edge.from.layer, Component::HeadZ).unit(edge.from.head)],
            receivers: vec![receiver(edge)?],
        })
    };
    let paths: Vec<Path> = edges.iter().map(path).collect::<Result<_, _>>()?;
    let outcome = patch_paths(model, question, &paths, policy, direction, execution)?;
    Ok(HeadEdges { edges: edges.to_vec(), outcome })
}

/// Writes a head as the pair `[layer, head]`, and reads it back.
mod pair {
    use rewire_hooks::Head;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(head: &Head, serializer: S) -> Result<S::Ok, S::Error> {
        (head.layer, head.head).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Head, D::Error> {
        <(usize, usize)>::deserialize(deserializer).map(Head::from)
    }
}
