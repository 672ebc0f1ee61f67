//! Circuit files of EAP-IG and MIB: a JSON object with the model's shape, nodes, and edges with
//! scores.

use std::collections::BTreeMap;

use ndarray::Array2;
use rewire_analysis::edges::{Edge, EdgeGraph, EdgeSet};
use rewire_input::cut;
use rewire_model::TransformerConfig;
use serde::{Deserialize, Serialize};

use crate::selection::EdgeScores;
use crate::shape::{CircuitShape, ShapeDifference};

/// A circuit with the scores of its edges, as a file of EAP-IG or MIB holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitFile {
    /// The edges inside.
    pub circuit: EdgeSet,
    /// The scores of all edges.
    pub scores: EdgeScores,
    /// For a circuit of nodes, the score of each writer's node. NaN for a node without a score.
    pub node_scores: Option<Vec<f32>>,
    /// Warnings about the contents, one line each.
    pub warnings: Vec<String>,
}

/// Why a circuit file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitFileError {
    /// The text is no JSON of the expected form.
    #[error("it is no circuit of EAP-IG or MIB (JSON with cfg, nodes and edges): {0}")]
    Json(String),
    /// The circuit is of another model.
    #[error("it is a circuit of another model: its {field} is {found}, and the model's is {expected}")]
    OtherModel {
        /// The field of `cfg`.
        field: &'static str,
        /// The value in the file.
        found: String,
        /// The value of the model.
        expected: String,
    },
    /// A shape that no model has.
    #[error("its cfg is of no model: {0} layers of {1} heads")]
    Shape(usize, usize),
    /// An edge that the model lacks.
    #[error("it has an edge that cannot be: {0}")]
    Edge(String),
    /// A node that the model lacks.
    #[error("it has a node that the model lacks: {}", cut(.0))]
    Node(String),
    /// A score is infinite.
    #[error("the score of {edge} is {score}; scores must be finite, or NaN for an edge without a score")]
    Score {
        /// The edge.
        edge: String,
        /// The score.
        score: f64,
    },
    /// A circuit of neurons.
    #[error("it is a circuit of neurons: node {node} has the field `{field}`; circuits of edges and of nodes are read")]
    Neurons {
        /// The first node with the field.
        node: String,
        /// The field.
        field: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Contents {
    cfg: CircuitShape,
    nodes: BTreeMap<String, Node>,
    #[serde(default)]
    edges: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Node {
    in_graph: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(default, skip_serializing)]
    neurons: Option<serde_json::Value>,
    #[serde(default, skip_serializing)]
    neurons_scores: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// `None` for NaN.
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    in_graph: bool,
}

impl Contents {
    fn parse(bytes: &[u8]) -> Result<Self, CircuitFileError> {
        let text = std::str::from_utf8(bytes).map_err(|error| CircuitFileError::Json(error.to_string()))?;
        serde_json::from_str(&without_nan(text)).map_err(|error| CircuitFileError::Json(error.to_string()))
    }
}

impl CircuitFile {
    /// Reads a circuit for a model.
    ///
    /// A file may leave out edges; they are outside the circuit and have score 0. A NaN score
    /// stands for an edge without a score. A file with nodes alone is a circuit of nodes: all edges
    /// between nodes inside are inside.
    ///
    /// # Errors
    /// [`CircuitFileError`].
    pub fn read(bytes: &[u8], config: &TransformerConfig) -> Result<Self, CircuitFileError> {
        let contents = Contents::parse(bytes)?;
        match contents.cfg.difference(&CircuitShape::of(config)) {
            None => Self::of(&contents, EdgeGraph::new(config)),
            Some(ShapeDifference { field, values: [found, expected] }) => {
                Err(CircuitFileError::OtherModel { field, found, expected })
            }
        }
    }

    /// Reads a circuit for a model of the shape that the file states.
    ///
    /// # Errors
    /// [`CircuitFileError`].
    pub fn read_alone(bytes: &[u8]) -> Result<(Self, CircuitShape), CircuitFileError> {
        let contents = Contents::parse(bytes)?;
        let shape = contents.cfg;
        let graph = shape.graph().ok_or(CircuitFileError::Shape(shape.n_layers, shape.n_heads))?;
        Ok((Self::of(&contents, graph)?, shape))
    }

    fn of(contents: &Contents, graph: EdgeGraph) -> Result<Self, CircuitFileError> {
        let nodes = members(&contents.nodes, graph)?;
        let mut values = Array2::zeros((graph.n_writers(), graph.n_readers()));
        let mut circuit = EdgeSet::empty(graph);
        for (name, Entry { score, in_graph }) in &contents.edges {
            let edge: Edge = name.parse().map_err(|error| CircuitFileError::Edge(format!("{error}")))?;
            let place = graph.place(&edge).map_err(|error| CircuitFileError::Edge(error.to_string()))?;
            let score = score.map_or(f32::NAN, |score| score as f32);
            if score.is_infinite() {
                return Err(CircuitFileError::Score { edge: name.clone(), score: f64::from(score) });
            }
            values[place] = score;
            circuit.set(place, *in_graph || score.is_nan());
        }
        if contents.edges.is_empty() {
            let is_inside =
                |[writer, reader]: [usize; 2]| nodes[writer] && graph.node_of(reader).is_none_or(|n| nodes[n]);
            graph.places().filter(|place| is_inside(*place)).for_each(|place| circuit.set(place, true));
        }
        let scores = EdgeScores { graph, values };
        let mut warnings = Vec::new();
        let missing = graph.n_edges() - contents.edges.len();
        if missing > 0 && !contents.edges.is_empty() {
            warnings.push(format!(
                "the file has {} of the model's {} edges; the others are outside the circuit, with score 0",
                contents.edges.len(),
                graph.n_edges()
            ));
        }
        let unscored = graph.places().filter(|place| scores.values[*place].is_nan()).count();
        if unscored > 0 {
            warnings.push(format!("{unscored} edges have no score (NaN); they are in every circuit"));
        }
        warnings.extend(scores.has_old_sign().then(|| OLD_SIGN.to_owned()));
        let score_of = |writer: usize| {
            let node = contents.nodes.get(&graph.writer(writer).to_string());
            node.and_then(|node| node.score).map_or(f32::NAN, |score| score as f32)
        };
        let node_scores = contents.edges.is_empty().then(|| (0..graph.n_writers()).map(score_of).collect());
        Ok(Self { circuit, scores, node_scores, warnings })
    }

    /// Returns the contents of the file, with every edge of the model.
    ///
    /// # Errors
    /// If the scores cannot be written as JSON.
    pub fn write(&self, config: &TransformerConfig) -> Result<Vec<u8>, CircuitFileError> {
        let Self { circuit, scores, .. } = self;
        let graph = *circuit.graph();
        let nodes_inside = nodes_of(circuit);
        let node = |in_graph| Node { in_graph, score: None, neurons: None, neurons_scores: None };
        let mut nodes: BTreeMap<String, Node> = (0..graph.n_writers())
            .map(|writer| (graph.writer(writer).to_string(), node(nodes_inside[writer])))
            .collect();
        nodes.insert("logits".to_owned(), node(true));
        let entry = |place: [usize; 2]| {
            let score = scores.values[place];
            Entry { score: (!score.is_nan()).then_some(f64::from(score)), in_graph: circuit.contains(place) }
        };
        let edges = graph.places().map(|place| (graph.edge(place).to_string(), entry(place))).collect();
        let cfg = CircuitShape::of(config);
        let json = serde_json::to_string(&Contents { cfg, nodes, edges });
        let json = json.map_err(|error| CircuitFileError::Json(error.to_string()))?;
        // Python writes and reads NaN, and EAP-IG takes it for an edge without a score.
        Ok((json.replace("\"score\":null", "\"score\":NaN") + "\n").into_bytes())
    }
}

/// The warning about scores of the opposite sign.
pub const OLD_SIGN: &str = "the scores look as if they had the opposite sign, as MIB's published example has: those of \
                            the edges into the logits sum to less than 0; a positive score must mean that corrupting \
                            the edge hurts (--sign opposite turns them)";

impl EdgeScores {
    /// Returns whether the scores of the edges into the logits sum to less than 0.
    ///
    /// EAP's scores of these edges sum to the first-order change of the loss when the last residual
    /// stream is corrupted, which is positive where the model does the task. Early files of EAP-IG
    /// scored the change of the metric.
    #[must_use]
    pub fn has_old_sign(&self) -> bool {
        let logits = self.graph.n_readers() - 1;
        let scores = (0..self.graph.n_writers()).map(|writer| f64::from(self.values[[writer, logits]]));
        scores.filter(|score| !score.is_nan()).sum::<f64>() < 0.0
    }

    /// Returns the scores with the opposite sign.
    #[must_use]
    pub fn opposite(&self) -> Self {
        Self { graph: self.graph, values: self.values.mapv(|score| -score) }
    }
}

/// Returns, by writer, whether an edge of the circuit leaves or enters its node.
pub(crate) fn nodes_of(circuit: &EdgeSet) -> Vec<bool> {
    let graph = circuit.graph();
    let mut inside = vec![false; graph.n_writers()];
    for [writer, reader] in circuit.places() {
        inside[writer] = true;
        if let Some(node) = graph.node_of(reader) {
            inside[node] = true;
        }
    }
    inside
}

/// Returns, by writer, whether its node is inside.
fn members(nodes: &BTreeMap<String, Node>, graph: EdgeGraph) -> Result<Vec<bool>, CircuitFileError> {
    let places: BTreeMap<String, usize> =
        (0..graph.n_writers()).map(|writer| (graph.writer(writer).to_string(), writer)).collect();
    let mut inside = vec![false; graph.n_writers()];
    for (name, node) in nodes {
        let fields = [("neurons", &node.neurons), ("neurons_scores", &node.neurons_scores)];
        if let Some((field, _)) = fields.into_iter().find(|(_, value)| value.is_some()) {
            return Err(CircuitFileError::Neurons { node: name.clone(), field });
        }
        match places.get(name) {
            Some(&place) => inside[place] = node.in_graph,
            None if name == "logits" => {}
            None => return Err(CircuitFileError::Node(name.clone())),
        }
    }
    Ok(inside)
}

/// Returns the JSON that Python wrote with `null` in the place of `NaN`, outside of strings.
fn without_nan(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    let (mut in_string, mut is_escaped) = (false, false);
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        if !in_string && text[at..].starts_with("NaN") {
            found.push_str("null");
            rest.nth(1);
            continue;
        }
        in_string ^= c == '"' && !is_escaped;
        is_escaped = in_string && c == '\\' && !is_escaped;
        found.push(c);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TransformerConfig {
        TransformerConfig::gpt2(2, 2, 8, 11, 6)
    }

    fn file(nodes: &str, edges: &str) -> String {
        let cfg = r#""n_layers": 2, "n_heads": 2, "parallel_attn_mlp": false, "d_model": 8"#;
        format!(r#"{{"cfg": {{{cfg}}}, "nodes": {{{nodes}}}, "edges": {{{edges}}}}}"#)
    }

    fn refused(text: &str) -> String {
        CircuitFile::read(text.as_bytes(), &config()).unwrap_err().to_string()
    }

    #[test]
    fn a_written_circuit_is_read_back() {
        let graph = EdgeGraph::new(&config());
        let mut values = Array2::zeros((graph.n_writers(), graph.n_readers()));
        for (number, place) in graph.places().enumerate() {
            values[place] = number as f32 / 7.0;
        }
        let scores = EdgeScores { graph, values };
        let circuit = scores.top(20, crate::Ranking::Signed);
        let written = CircuitFile { circuit, scores, node_scores: None, warnings: Vec::new() };
        let bytes = written.write(&config()).unwrap();
        assert_eq!(CircuitFile::read(&bytes, &config()).unwrap(), written);
    }

    #[test]
    fn edges_without_a_score_are_inside_and_stay_without_one() {
        let text = file("", r#""m0->logits": {"score": NaN, "in_graph": false}, "input->m0": {"score": 1.5}"#);
        let found = CircuitFile::read(text.as_bytes(), &config()).unwrap();
        assert_eq!(found.circuit.edges().map(|edge| edge.to_string()).collect::<Vec<_>>(), ["m0->logits"]);
        assert!(found.warnings[1].contains("1 edges have no score"), "{:?}", found.warnings);
        let again = String::from_utf8(found.write(&config()).unwrap()).unwrap();
        assert!(again.contains(r#""m0->logits":{"score":NaN,"in_graph":true}"#));
    }

    #[test]
    fn a_file_of_nodes_holds_all_edges_between_them() {
        let text = file(r#""input": {"in_graph": true}, "m0": {"in_graph": true, "score": 2.0}"#, "");
        let found = CircuitFile::read(text.as_bytes(), &config()).unwrap();
        let names: Vec<String> = found.circuit.edges().map(|edge| edge.to_string()).collect();
        assert_eq!(names, ["input->m0", "input->logits", "m0->logits"]);
        let scores = found.node_scores.unwrap();
        assert!(scores[3] == 2.0 && scores[0].is_nan(), "m0 is writer 3: {scores:?}");
    }

    #[test]
    fn a_file_is_read_without_its_model() {
        let text = file("", r#""m0->logits": {"score": 1.5, "in_graph": true}"#);
        let (alone, shape) = CircuitFile::read_alone(text.as_bytes()).unwrap();
        assert_eq!(alone, CircuitFile::read(text.as_bytes(), &config()).unwrap());
        assert_eq!(shape, CircuitShape::of(&config()));
        let huge = text.replace("\"n_layers\": 2", "\"n_layers\": 2000000000");
        let refused = CircuitFile::read_alone(huge.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused, "its cfg is of no model: 2000000000 layers of 2 heads");
    }

    #[test]
    fn scores_of_the_opposite_sign_are_reported() {
        let signed = |score: f64| file("", &format!(r#""m0->logits": {{"score": {score}, "in_graph": true}}"#));
        let warns = |text: String| {
            let found = CircuitFile::read(text.as_bytes(), &config()).unwrap();
            found.warnings.iter().any(|warning| warning == OLD_SIGN)
        };
        assert!(warns(signed(-0.3)) && !warns(signed(0.3)));
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        assert!(refused("[1]").starts_with("it is no circuit of EAP-IG or MIB"));
        assert!(refused("{\"cfg\": 3}").contains("invalid type"));
        let other = file("", "").replace("\"n_heads\": 2", "\"n_heads\": 12");
        assert_eq!(
            refused(&other),
            "it is a circuit of another model: its number of heads (n_heads) is 12, and the model's is 2"
        );
        let edge = |name: &str| file("", &format!(r#""{name}": {{"score": 1.0, "in_graph": true}}"#));
        assert!(refused(&edge("m1->m0")).ends_with("there is no edge m1->m0: the writer comes after the reader"));
        assert!(refused(&edge("a7.h0->logits")).contains("no such writer"));
        assert!(refused(&edge("nonsense")).contains("no edge `nonsense`"));
        let infinite = file("", r#""m0->logits": {"score": 1e300, "in_graph": true}"#);
        assert!(refused(&infinite).contains("scores must be finite"));
        assert!(refused(&file(r#""a9.h0": {"in_graph": true}"#, "")).contains("a node that the model lacks: a9.h0"));
        assert!(refused(&file(r#""m0": {"in_graph": true, "neurons": [true]}"#, "")).contains("a circuit of neurons"));
    }

    #[test]
    fn nan_inside_a_string_stays() {
        assert_eq!(without_nan(r#"{"NaN \" NaN": NaN}"#), r#"{"NaN \" NaN": null}"#);
    }
}
