//! The nodes that a run of circuits has to compute, and the edges inside each circuit.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rewire_hooks::Head;
use rewire_model::HeadInput;

use crate::edges::edge_set::EdgeSet;
use crate::edges::graph::{EdgeGraph, Reader, Writer};

/// The place of a group of readers in the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Queries of heads of this layer.
    Queries(usize),
    /// Keys of heads of this layer.
    Keys(usize),
    /// Values of heads of this layer.
    Values(usize),
    /// The MLP of this layer.
    Mlp(usize),
    /// The logits.
    Logits,
}

impl Stage {
    pub(super) fn of_heads(layer: usize, input: HeadInput) -> Self {
        match input {
            HeadInput::Q => Stage::Queries(layer),
            HeadInput::K => Stage::Keys(layer),
            HeadInput::V => Stage::Values(layer),
        }
    }

    fn of(reader: Reader) -> (Self, usize) {
        match reader {
            Reader::Head(Head { layer, head }, input) => (Self::of_heads(layer, input), head),
            Reader::Mlp(layer) => (Stage::Mlp(layer), 0),
            Reader::Logits => (Stage::Logits, 0),
        }
    }
}

/// The readers of one stage that a run computes.
#[derive(Debug, Clone)]
pub(super) struct Readers<B: Backend> {
    /// Their heads; one 0 for an MLP and for the logits.
    pub(super) heads: Vec<usize>,
    /// 1 for each edge inside a circuit, else 0: `[circuit, reader, writer]`. The writers are the
    /// first of [`Inside::writers`].
    pub(super) inside: Tensor<B, 3>,
}

/// The nodes that a run of several circuits computes, side by side along the batch.
///
/// A reader is left out if none of the circuits needs it: its node's output is then used by no
/// circuit.
#[derive(Debug, Clone)]
pub(super) struct Inside<B: Backend> {
    pub(super) circuits: usize,
    /// The writers with an edge in one of the circuits, in the order of the graph.
    pub(super) writers: Vec<Writer>,
    pub(super) stages: BTreeMap<Stage, Readers<B>>,
    /// The first layer with a computed reader that a circuit does not feed completely.
    start: usize,
}

/// Writers and readers that a run of circuits computes, by index.
pub(super) struct Needed {
    writers: Vec<usize>,
    readers: Vec<usize>,
}

impl Needed {
    /// Returns the nodes that a run of a set of edges, all on paths to the logits, computes.
    pub(super) fn of(set: &EdgeSet) -> Self {
        let graph = set.graph();
        let has = |writer: usize| (0..graph.n_readers()).any(|reader| set.contains([writer, reader]));
        let writers: Vec<usize> = (0..graph.n_writers()).filter(|writer| has(*writer)).collect();
        let is_read = |reader: &usize| graph.node_of(*reader).is_none_or(|node| writers.contains(&node));
        let readers = (0..graph.n_readers()).filter(is_read).collect();
        Self { writers, readers }
    }

    /// Returns how many vectors of `d_model` numbers a run holds at once for each token of each
    /// circuit: the changes of the writers and their copy while it grows, and the streams of the
    /// largest stage with what the norm makes of them.
    pub(super) fn vectors(&self, graph: &EdgeGraph) -> usize {
        let mut by_stage = BTreeMap::<Stage, usize>::new();
        for &reader in &self.readers {
            *by_stage.entry(Stage::of(graph.reader(reader)).0).or_default() += 1;
        }
        2 * self.writers.len() + 6 * by_stage.values().copied().max().unwrap_or(1)
    }
}

impl<B: Backend> Inside<B> {
    /// Returns the nodes that a run of these circuits computes. Every edge of a circuit must lie on
    /// a path to the logits.
    pub(super) fn new(graph: &EdgeGraph, circuits: &[&EdgeSet], device: &B::Device) -> Self {
        let all = circuits.iter().fold(EdgeSet::empty(*graph), |all, set| all.union(set));
        let Needed { writers, readers } = Needed::of(&all);
        let is_complete = |reader: &usize| {
            let all = |set: &&EdgeSet| (0..graph.n_writers_to(*reader)).all(|writer| set.contains([writer, *reader]));
            circuits.iter().all(all)
        };
        let layer_of = |reader: usize| match graph.reader(reader) {
            Reader::Head(head, _) => head.layer,
            Reader::Mlp(layer) => layer,
            Reader::Logits => graph.n_layers() - 1,
        };
        let open = readers.iter().find(|reader| !is_complete(reader));
        let start = open.map_or(graph.n_layers() - 1, |reader| layer_of(*reader));
        let mut by_stage: BTreeMap<Stage, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for reader in readers {
            let (stage, head) = Stage::of(graph.reader(reader));
            let (heads, indices) = by_stage.entry(stage).or_default();
            heads.push(head);
            indices.push(reader);
        }
        let readers = |(heads, indices): (Vec<usize>, Vec<usize>)| {
            let before = writers.iter().filter(|writer| **writer < graph.n_writers_to(indices[0])).count();
            let edge =
                |set: &EdgeSet, reader: usize, writer: usize| f32::from(u8::from(set.contains([writer, reader])));
            let mut inside = Vec::with_capacity(circuits.len() * indices.len() * before);
            for set in circuits {
                for &reader in &indices {
                    inside.extend(writers[..before].iter().map(|&writer| edge(set, reader, writer)));
                }
            }
            let shape = [circuits.len(), indices.len(), before];
            Readers { heads, inside: Tensor::from_data(TensorData::new(inside, shape), device) }
        };
        let stages = by_stage.into_iter().map(|(stage, of)| (stage, readers(of))).collect();
        let writers = writers.iter().map(|&writer| graph.writer(writer)).collect();
        Self { circuits: circuits.len(), writers, stages, start }
    }

    /// Returns the first block that the run has to compute. Before it, every computed node of every
    /// circuit has all its edges.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Returns the heads of a layer that are among the writers.
    pub(super) fn heads(&self, layer: usize) -> Vec<usize> {
        let of_layer = |writer: &Writer| match writer {
            Writer::Head(head) if head.layer == layer => Some(head.head),
            _ => None,
        };
        self.writers.iter().filter_map(of_layer).collect()
    }
}
