//! The edge graph: the components that write to the residual stream, the inputs that read it, and
//! the edges between them.

use std::fmt;
use std::ops::Range;

use rewire_hooks::Head;
use rewire_model::{HeadInput, TransformerConfig};

use crate::error::AnalysisError;

/// A component that writes to the residual stream. `Display` writes `input`, `a5.h9` or `m7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The token embedding.
    Input,
    /// A head's output.
    Head(Head),
    /// The output of the MLP of this layer.
    Mlp(usize),
}

/// An input that reads the residual stream through a norm. `Display` writes `a8.h6<v>`, `m7` or
/// `logits`.
///
/// Where heads share keys and values (grouped-query attention), a reader is still the input of one
/// attention head: the keys or values of the group, as this head alone reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reader {
    /// The queries, keys or values of a head.
    Head(Head, HeadInput),
    /// The MLP of this layer.
    Mlp(usize),
    /// The final norm and the unembedding.
    Logits,
}

/// An edge from a writer to a later reader. `Display` writes `a5.h9->a8.h6<v>`, and `FromStr` reads
/// it.
///
/// ```
/// use rewire_analysis::edges::Edge;
///
/// let edge: Edge = "a5.h9->a8.h6<v>".parse().unwrap();
/// assert_eq!(edge.to_string(), "a5.h9->a8.h6<v>");
/// assert!("a5.h9".parse::<Edge>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    /// The component whose output the edge carries.
    pub writer: Writer,
    /// The input that the edge ends at.
    pub reader: Reader,
}

/// All writers, readers and edges of a model, in the order of EAP-IG (Hanna et al. 2024).
///
/// Writers are the embedding, then the heads and the MLP of each layer. Readers are the queries of
/// all heads, the keys, the values and the MLP of each layer, then the logits. Position embeddings
/// and biases belong to no writer: they are the same in every run. An edge joins a writer to each
/// reader that comes after it. In a sequential block, the heads also write to the MLP of their
/// layer.
///
/// ```
/// use rewire_analysis::edges::EdgeGraph;
/// use rewire_model::TransformerConfig;
///
/// // Layers, heads, d_model, vocabulary, context: the size of GPT-2 small.
/// let graph = EdgeGraph::new(&TransformerConfig::gpt2(12, 12, 768, 50257, 1024));
/// assert_eq!((graph.n_writers(), graph.n_readers(), graph.n_edges()), (157, 445, 32_491));
/// assert_eq!(graph.edges().next().unwrap().to_string(), "input->a0.h0<q>");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeGraph {
    n_layers: usize,
    n_heads: usize,
    parallel_block: bool,
}

/// How the attention and the MLP of a layer follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockOrder {
    /// The MLP reads the residual stream after the attention.
    Sequential,
    /// Both read the same residual stream.
    Parallel,
}

/// The inputs of a head, in the order of readers.
pub(super) const INPUTS: [HeadInput; 3] = [HeadInput::Q, HeadInput::K, HeadInput::V];

impl EdgeGraph {
    /// Returns the graph of a model.
    #[must_use]
    pub fn new(config: &TransformerConfig) -> Self {
        Self { n_layers: config.n_layers, n_heads: config.n_heads, parallel_block: config.parallel_block }
    }

    /// Returns the graph of a model of this shape.
    #[must_use]
    pub fn of_shape(n_layers: usize, n_heads: usize, block: BlockOrder) -> Self {
        Self { n_layers, n_heads, parallel_block: block == BlockOrder::Parallel }
    }

    /// Returns the number of layers.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.n_layers
    }

    /// Returns the number of writers.
    #[must_use]
    pub fn n_writers(&self) -> usize {
        1 + self.n_layers * (self.n_heads + 1)
    }

    /// Returns the number of readers.
    #[must_use]
    pub fn n_readers(&self) -> usize {
        self.n_layers * (3 * self.n_heads + 1) + 1
    }

    /// Returns the number of edges.
    #[must_use]
    pub fn n_edges(&self) -> usize {
        (0..self.n_readers()).map(|reader| self.n_writers_to(reader)).sum()
    }

    /// Returns writer `index`.
    ///
    /// # Panics
    /// If there is no such writer.
    #[must_use]
    pub fn writer(&self, index: usize) -> Writer {
        assert!(index < self.n_writers(), "writer {index} of {}", self.n_writers());
        let Some(place) = index.checked_sub(1) else { return Writer::Input };
        let (layer, head) = (place / (self.n_heads + 1), place % (self.n_heads + 1));
        if head == self.n_heads { Writer::Mlp(layer) } else { Writer::Head(Head::new(layer, head)) }
    }

    /// Returns reader `index`.
    ///
    /// # Panics
    /// If there is no such reader.
    #[must_use]
    pub fn reader(&self, index: usize) -> Reader {
        assert!(index < self.n_readers(), "reader {index} of {}", self.n_readers());
        let of_layer = 3 * self.n_heads + 1;
        let (layer, place) = (index / of_layer, index % of_layer);
        match place / self.n_heads.max(1) {
            _ if layer == self.n_layers => Reader::Logits,
            3 => Reader::Mlp(layer),
            input => Reader::Head(Head::new(layer, place % self.n_heads), INPUTS[input]),
        }
    }

    /// Returns the number of writers that an edge joins to reader `index`. They are the first
    /// writers.
    ///
    /// # Panics
    /// If there is no such reader.
    #[must_use]
    pub fn n_writers_to(&self, index: usize) -> usize {
        let before = |layer: usize| 1 + layer * (self.n_heads + 1);
        match self.reader(index) {
            Reader::Head(head, _) => before(head.layer),
            Reader::Mlp(layer) if self.parallel_block => before(layer),
            Reader::Mlp(layer) => before(layer) + self.n_heads,
            Reader::Logits => self.n_writers(),
        }
    }

    /// Returns the places of all edges, `[writer, reader]`, reader by reader.
    pub fn places(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let graph = *self;
        (0..self.n_readers())
            .flat_map(move |reader| (0..graph.n_writers_to(reader)).map(move |writer| [writer, reader]))
    }

    /// Returns all edges, reader by reader.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + use<> {
        let graph = *self;
        self.places().map(move |place| graph.edge(place))
    }

    /// Returns the edge at a place `[writer, reader]`.
    ///
    /// # Panics
    /// If there is no such writer or reader.
    #[must_use]
    pub fn edge(&self, [writer, reader]: [usize; 2]) -> Edge {
        Edge { writer: self.writer(writer), reader: self.reader(reader) }
    }

    /// Returns the place of an edge, `[writer, reader]`.
    ///
    /// # Errors
    /// [`AnalysisError::NoSuchEdge`] if the model lacks its ends, or if its reader comes before its
    /// writer.
    pub fn place(&self, edge: &Edge) -> Result<[usize; 2], AnalysisError> {
        let refuse = |reason| Err(AnalysisError::NoSuchEdge { edge: edge.to_string(), reason });
        let exists = |layer: usize, head: usize| layer < self.n_layers && head < self.n_heads;
        let writer = match edge.writer {
            Writer::Input => 0,
            Writer::Head(Head { layer, head }) if exists(layer, head) => 1 + layer * (self.n_heads + 1) + head,
            Writer::Mlp(layer) if exists(layer, 0) => 1 + layer * (self.n_heads + 1) + self.n_heads,
            _ => return refuse("the model has no such writer"),
        };
        let reader = match edge.reader {
            Reader::Head(Head { layer, head }, input) if exists(layer, head) => {
                self.heads_of(layer).start + input as usize * self.n_heads + head
            }
            Reader::Mlp(layer) if exists(layer, 0) => self.heads_of(layer).end,
            Reader::Logits => self.n_readers() - 1,
            _ => return refuse("the model has no such reader"),
        };
        match writer < self.n_writers_to(reader) {
            true => Ok([writer, reader]),
            false => refuse("the writer comes after the reader"),
        }
    }

    /// Returns the indices of the readers that are inputs of heads of a layer. The MLP of the layer
    /// follows them.
    pub(super) fn heads_of(&self, layer: usize) -> Range<usize> {
        let from = layer * (3 * self.n_heads + 1);
        from..from + 3 * self.n_heads
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Writer::Input => f.write_str("input"),
            Writer::Head(Head { layer, head }) => write!(f, "a{layer}.h{head}"),
            Writer::Mlp(layer) => write!(f, "m{layer}"),
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reader::Head(Head { layer, head }, input) => write!(f, "a{layer}.h{head}<{}>", letter(*input)),
            Reader::Mlp(layer) => write!(f, "m{layer}"),
            Reader::Logits => f.write_str("logits"),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.writer, self.reader)
    }
}

pub(super) fn letter(input: HeadInput) -> &'static str {
    match input {
        HeadInput::Q => "q",
        HeadInput::K => "k",
        HeadInput::V => "v",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(config: TransformerConfig) -> EdgeGraph {
        EdgeGraph::new(&config)
    }

    #[test]
    fn the_counts_are_those_of_the_field() {
        let counts = |graph: EdgeGraph| (graph.n_writers(), graph.n_readers(), graph.n_edges());
        assert_eq!(counts(graph(TransformerConfig::gpt2(12, 12, 768, 11, 6))), (157, 445, 32_491));
        assert_eq!(counts(graph(TransformerConfig::gpt2(4, 8, 64, 11, 6))), (37, 101, 1_519));
        assert_eq!(counts(graph(TransformerConfig::neox(4, 8, 64, 11, 6))), (37, 101, 1_487));
        assert_eq!(graph(TransformerConfig::gpt2(24, 16, 1024, 11, 6)).n_edges(), 231_877);
        assert_eq!(graph(TransformerConfig::gpt2(48, 25, 1600, 11, 6)).n_edges(), 2_235_025);
        assert_eq!(graph(TransformerConfig::neox(6, 8, 512, 11, 6)).n_edges(), 3_580);
        assert_eq!(graph(TransformerConfig::neox(24, 16, 1024, 11, 6)).n_edges(), 231_493);
    }

    #[test]
    fn every_edge_is_read_back_from_its_name_and_found_at_its_place() {
        for graph in [graph(TransformerConfig::gpt2(3, 2, 8, 11, 6)), graph(TransformerConfig::neox(3, 2, 8, 11, 6))] {
            assert_eq!(graph.places().count(), graph.n_edges());
            for place in graph.places() {
                let edge = graph.edge(place);
                assert_eq!(edge.to_string().parse(), Ok(edge));
                assert_eq!(graph.place(&edge).unwrap(), place);
            }
        }
    }

    #[test]
    fn only_sequential_blocks_join_heads_to_the_mlp_of_their_layer() {
        let edge: Edge = "a1.h0->m1".parse().unwrap();
        assert!(graph(TransformerConfig::gpt2(2, 2, 8, 11, 6)).place(&edge).is_ok());
        let refused = graph(TransformerConfig::neox(2, 2, 8, 11, 6)).place(&edge).unwrap_err();
        assert_eq!(refused.to_string(), "there is no edge a1.h0->m1: the writer comes after the reader");
    }

    #[test]
    fn edges_that_the_model_lacks_are_refused_by_name() {
        let graph = graph(TransformerConfig::gpt2(2, 2, 8, 11, 6));
        let refused = |name: &str| graph.place(&name.parse().unwrap()).unwrap_err().to_string();
        assert_eq!(refused("a0.h2->logits"), "there is no edge a0.h2->logits: the model has no such writer");
        assert_eq!(refused("input->a2.h0<k>"), "there is no edge input->a2.h0<k>: the model has no such reader");
        assert_eq!(refused("m1->m0"), "there is no edge m1->m0: the writer comes after the reader");
    }
}
