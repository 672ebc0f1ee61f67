//! The graph of a circuit of edges, to draw.

use rewire_analysis::edges::{Edge, Reader, Writer};
use rewire_circuits::CircuitFile;
use rewire_report::{Emphasis, Graph, GraphEdge, GraphNode};

/// Returns the circuit as a graph of nodes in layers. The effect of an edge is what corrupting it
/// does to the metric: the score with the opposite sign.
pub(super) fn graph(found: &CircuitFile) -> Graph {
    let layers = found.scores.graph.n_layers();
    let mut graph = Graph::default();
    let mut add = |name: &str, class: &str, layer: usize| {
        if graph.nodes.iter().all(|node| node.name != name) {
            let (name, class) = (name.to_owned(), class.to_owned());
            graph.nodes.push(GraphNode { name, class, layer, standing: Emphasis::Normal });
        }
    };
    for edge in found.circuit.edges() {
        let (class, layer) = place_of_writer(edge.writer);
        add(&edge.writer.to_string(), class, layer);
        let (name, class, layer) = place_of_reader(edge, layers);
        add(&name, class, layer);
    }
    graph.edges = found
        .circuit
        .places()
        .map(|place| {
            let edge = found.scores.graph.edge(place);
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
        })
        .collect();
    graph
}

/// Returns the class of a writer and its row: the input, then the heads and the MLP of each layer.
fn place_of_writer(writer: Writer) -> (&'static str, usize) {
    match writer {
        Writer::Input => ("input", 0),
        Writer::Head(head) => ("head", 1 + 2 * head.layer),
        Writer::Mlp(layer) => ("MLP", 2 + 2 * layer),
    }
}

/// Returns the name of the node that an edge ends at, its class and its row.
fn place_of_reader(edge: Edge, layers: usize) -> (String, &'static str, usize) {
    match edge.reader {
        Reader::Head(head, _) => {
            let writer = Writer::Head(head);
            let (class, layer) = place_of_writer(writer);
            (writer.to_string(), class, layer)
        }
        Reader::Mlp(layer) => (Writer::Mlp(layer).to_string(), "MLP", 2 + 2 * layer),
        Reader::Logits => ("logits".to_owned(), "logits", 1 + 2 * layers),
    }
}
