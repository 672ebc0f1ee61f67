//! A graph of nodes in layers: drawn as SVG, and exported for Graphviz and as JSON.

pub(crate) mod drawing;
mod layout;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::charts::common::{OPPOSES, SUPPORTS};

/// Nodes, such as heads, and the edges between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// The nodes, drawn in rows by layer, the first layer at the bottom.
    pub nodes: Vec<GraphNode>,
    /// The edges.
    pub edges: Vec<GraphEdge>,
    /// Labels of rows, by layer.
    pub rows: BTreeMap<usize, String>,
}

/// One node: a head, an MLP, the input or the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphNode {
    /// Name, such as `L9H6`, unique in the graph.
    pub name: String,
    /// Function of the head, such as `name mover`, which sets the color; empty if none is known.
    pub class: String,
    /// Layer, which sets the row.
    pub layer: usize,
    /// Emphasis of the node.
    pub standing: Emphasis,
    /// Effect of corrupting the node, if it is known. It sets the color and width of the border:
    /// blue below 0 (the node supports the behavior), red above 0.
    pub effect: Option<f32>,
}

/// Emphasis of a node in the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emphasis {
    /// A heavy border.
    Bold,
    /// A normal border.
    Normal,
}

impl Emphasis {
    fn border(self) -> f32 {
        match self {
            Emphasis::Bold => 3.0,
            Emphasis::Normal => 1.0,
        }
    }
}

/// One edge.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphEdge {
    /// Name of the sender.
    pub from: String,
    /// Name of the receiver.
    pub to: String,
    /// Input of the receiver: `q`, `k`, `v`, or empty for the logits.
    pub kind: String,
    /// Effect of corrupting the edge. The line is as thick as the effect is large. It is blue below
    /// 0 (the edge supports the behavior), and red and dashed above 0.
    pub effect: f32,
}

/// Colors of classes, in order of appearance.
const CLASSES: [&str; 16] = [
    "#c6dbef", "#fdc9a8", "#c7e9c0", "#e7d4e8", "#fff2ae", "#b8e2de", "#e0e0e0", "#f8c9df", "#e5d8bd", "#9ecae1",
    "#fc9272", "#a1d99b", "#bcbddc", "#d8c27a", "#80cdc1", "#f768a1",
];

/// Widths of lines: without an effect, and of the largest effect.
const WIDTHS: [f32; 2] = [0.8, 5.0];

/// Color of lines without an effect.
const NEITHER: &str = "#777777";

impl Graph {
    /// Returns the graph with only the `n` edges of largest effect and the nodes that they join.
    #[must_use]
    pub fn strongest(&self, n: usize) -> Self {
        if self.edges.len() <= n {
            return self.clone();
        }
        let mut edges = self.edges.clone();
        edges.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        edges.truncate(n);
        let joined = |node: &&GraphNode| edges.iter().any(|e| e.from == node.name || e.to == node.name);
        let nodes = self.nodes.iter().filter(joined).cloned().collect();
        Self { nodes, edges, rows: self.rows.clone() }
    }

    /// Returns the graph in Graphviz' DOT language.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut dot = String::from("digraph circuit {\n  rankdir=BT;\n  node [shape=box, style=filled];\n");
        for node in &self.nodes {
            let (name, color) = (quoted(&node.name), self.color(&node.class));
            // Writing into a String cannot fail.
            let (class, width) = (quoted(&node.class), self.border(node));
            let border = quoted(node.effect.map_or("#000000", color_of));
            let color = quoted(color);
            let _ =
                writeln!(dot, "  {name} [fillcolor={color}, color={border}, tooltip={class}, penwidth={width:.2}];");
        }
        for layer in self.layers() {
            let names: Vec<String> = self.in_layer(layer).map(|node| quoted(&node.name)).collect();
            let _ = writeln!(dot, "  {{ rank=same; {}; }}", names.join("; "));
        }
        for edge in &self.edges {
            let label = quoted(format!("{} {:.3}", edge.kind, edge.effect).trim());
            let style = if edge.effect > 0.0 { "dashed" } else { "solid" };
            let (from, to, color) = (quoted(&edge.from), quoted(&edge.to), quoted(color_of(edge.effect)));
            let width = self.width(edge);
            let _ =
                writeln!(dot, "  {from} -> {to} [label={label}, color={color}, style={style}, penwidth={width:.2}];");
        }
        dot + "}\n"
    }

    /// Returns the graph as `{"nodes": [..], "edges": [..]}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let node = |n: &GraphNode| json!({ "name": n.name, "class": n.class, "layer": n.layer, "heavy": n.standing == Emphasis::Bold });
        let edge = |e: &GraphEdge| json!({ "from": e.from, "to": e.to, "input": e.kind, "effect": e.effect });
        json!({
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
            "edges": self.edges.iter().map(edge).collect::<Vec<_>>(),
        })
    }

    fn layers(&self) -> Vec<usize> {
        let mut layers: Vec<usize> = self.nodes.iter().map(|node| node.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    fn in_layer(&self, layer: usize) -> impl Iterator<Item = &GraphNode> {
        self.nodes.iter().filter(move |node| node.layer == layer)
    }

    fn classes(&self) -> Vec<&str> {
        let mut classes: Vec<&str> = Vec::new();
        for node in &self.nodes {
            if !node.class.is_empty() && !classes.contains(&node.class.as_str()) {
                classes.push(&node.class);
            }
        }
        classes
    }

    fn color(&self, class: &str) -> &'static str {
        match self.classes().iter().position(|c| *c == class) {
            Some(number) => CLASSES[number % CLASSES.len()],
            None => "#ffffff",
        }
    }

    /// Returns the effects of edges, or of nodes if there are no edges.
    fn effects(&self) -> Vec<f32> {
        match self.edges.is_empty() {
            true => self.nodes.iter().filter_map(|node| node.effect).collect(),
            false => self.edges.iter().map(|edge| edge.effect).collect(),
        }
    }

    fn width(&self, edge: &GraphEdge) -> f32 {
        self.width_of(edge.effect)
    }

    /// Returns the width of a node's border.
    fn border(&self, node: &GraphNode) -> f32 {
        match node.effect {
            Some(effect) => self.width_of(effect),
            None => node.standing.border(),
        }
    }

    fn width_of(&self, effect: f32) -> f32 {
        let largest = self.effects().iter().fold(f32::MIN_POSITIVE, |most, effect| most.max(effect.abs()));
        if effect.is_nan() { WIDTHS[0] } else { WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * effect.abs() / largest }
    }
}

/// Returns the color of an effect.
fn color_of(effect: f32) -> &'static str {
    match effect {
        _ if effect < 0.0 => SUPPORTS,
        _ if effect > 0.0 => OPPOSES,
        _ => NEITHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let node = |name: &str, class: &str, layer| GraphNode {
            name: name.into(),
            class: class.into(),
            layer,
            standing: Emphasis::Normal,
            effect: None,
        };
        let edge = |from: &str, to: &str, kind: &str, effect| GraphEdge {
            from: from.into(),
            to: to.into(),
            kind: kind.into(),
            effect,
        };
        Graph {
            nodes: vec![node("L0H1", "duplicate \"token\"", 0), node("L2H3", "mover", 2), node("logits", "", 3)],
            edges: vec![edge("L0H1", "L2H3", "q", -0.2), edge("L2H3", "logits", "", 0.1)],
            rows: BTreeMap::from([(0, "layer 0".to_owned())]),
        }
    }

    #[test]
    fn graphviz_accepts_the_written_graph() {
        let dot = graph().to_dot();
        assert!(dot.starts_with("digraph circuit {") && dot.ends_with("}\n"), "{dot}");
        assert!(dot.contains("\"L0H1\" -> \"L2H3\" [label=\"q -0.200\""), "{dot}");
        assert!(dot.contains("duplicate \\\"token\\\""), "{dot}");
        assert!(dot.contains("[label=\"0.100\", color=\"#b2182b\", style=dashed"), "{dot}");
        assert!(dot.contains("color=\"#2166ac\", style=solid"), "{dot}");
    }

    #[test]
    fn the_json_has_every_node_and_edge() {
        let strongest = graph().strongest(1);
        assert_eq!((strongest.nodes.len(), strongest.edges[0].kind.as_str()), (2, "q"));
        let json = graph().to_json();
        assert_eq!((json["nodes"].as_array().unwrap().len(), json["edges"][0]["input"].as_str()), (3, Some("q")));
    }
}
