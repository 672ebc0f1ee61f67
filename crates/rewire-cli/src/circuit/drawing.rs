//! The graph of a circuit of edges, to draw.

use std::collections::BTreeMap;

use rewire_analysis::edges::{Edge, Reader, Writer};
use rewire_circuits::CircuitFile;
use rewire_report::{Emphasis, Graph, GraphEdge, GraphNode};

/// Most edges that a report draws.
pub(super) const DRAWN: usize = 60;

/// The explanation of the drawing in a report.
pub(super) const DRAWING: &str = "The edges of largest score, at most 60, from the input at the bottom to the logits. \
                                  Lines end at the queries, keys and values of heads (q, k, v).";

/// Returns the circuit as a graph of nodes in layers. The effect of an edge or node is what
/// corrupting it does to the metric: the score with the opposite sign. A circuit of nodes has no
/// edges in the drawing: all edges between its nodes are inside.
pub(super) fn graph(found: &CircuitFile) -> Graph {
    let edges = found.scores.graph;
    let layers = edges.n_layers();
    let mut graph = Graph { rows: rows(layers), ..Graph::default() };
    for edge in found.circuit.edges() {
        let places = [place_of_writer(edge.writer), place_of_reader(edge, layers)];
        for (name, class, layer) in places {
            if graph.nodes.iter().all(|node| node.name != name) {
                let (class, standing) = (class.to_owned(), Emphasis::Normal);
                graph.nodes.push(GraphNode { name, class, layer, standing, effect: None });
            }
        }
    }
    if let Some(scores) = &found.node_scores {
        let effects = (0..edges.n_writers()).map(|writer| (edges.writer(writer).to_string(), -scores[writer]));
        for (name, effect) in effects.filter(|(_, effect)| !effect.is_nan()) {
            if let Some(node) = graph.nodes.iter_mut().find(|node| node.name == name) {
                node.effect = Some(effect);
            }
        }
        return graph;
    }
    let drawn = |place: [usize; 2]| {
        let edge = edges.edge(place);
        let kind = match edge.reader {
            Reader::Head(_, input) => ["q", "k", "v"][input as usize],
            Reader::Mlp(_) | Reader::Logits => "",
        };
        GraphEdge {
            from: edge.writer.to_string(),
            to: place_of_reader(edge, layers).0,
            kind: kind.to_owned(),
            effect: -found.scores.values[place],
        }
    };
    graph.edges = found.circuit.places().map(drawn).collect();
    graph
}

/// Returns the labels of the rows that layers have.
fn rows(layers: usize) -> BTreeMap<usize, String> {
    let of =
        |layer: usize| [(1 + 2 * layer, format!("layer {layer} heads")), (2 + 2 * layer, format!("layer {layer} MLP"))];
    (0..layers).flat_map(of).collect()
}

/// Returns the name of a writer, its class and its row: the input, then the heads and the MLP of
/// each layer.
fn place_of_writer(writer: Writer) -> (String, &'static str, usize) {
    let (class, row) = match writer {
        Writer::Input => ("input", 0),
        Writer::Head(head) => ("head", 1 + 2 * head.layer),
        Writer::Mlp(layer) => ("MLP", 2 + 2 * layer),
    };
    (writer.to_string(), class, row)
}

/// Returns the name of the node that an edge ends at, its class and its row.
fn place_of_reader(edge: Edge, layers: usize) -> (String, &'static str, usize) {
    match edge.reader {
        Reader::Head(head, _) => place_of_writer(Writer::Head(head)),
        Reader::Mlp(layer) => place_of_writer(Writer::Mlp(layer)),
        Reader::Logits => ("logits".to_owned(), "logits", 1 + 2 * layers),
    }
}
