//! A graph of heads in layers: drawn as SVG, and exported for Graphviz and as JSON.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};
use serde_json::{Value, json};

use crate::numbers::number;

/// Heads and the edges between heads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// The heads, drawn in rows by layer, the first layer at the bottom.
    pub nodes: Vec<GraphNode>,
    /// The edges.
    pub edges: Vec<GraphEdge>,
}

/// One head, or the logits.
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
    /// Effect of the edge. The line is as thick as the effect is large, and dashed if the effect is
    /// above 0.
    pub effect: f32,
}

/// Colors by input of the receiver.
const KINDS: [(&str, &str); 4] = [("q", "#2166ac"), ("k", "#1b7837"), ("v", "#b2182b"), ("", "#555555")];
/// Colors of classes, in order of appearance.
const CLASSES: [&str; 16] = [
    "#c6dbef", "#fdc9a8", "#c7e9c0", "#e7d4e8", "#fff2ae", "#b8e2de", "#e0e0e0", "#f8c9df", "#e5d8bd", "#9ecae1",
    "#fc9272", "#a1d99b", "#bcbddc", "#d8c27a", "#80cdc1", "#f768a1",
];

const COLUMN: usize = 92;
const ROW: usize = 96;
const BOX: [usize; 2] = [72, 26];
/// Space for lines that bend around nodes.
const MARGIN: usize = 60;

impl Graph {
    /// Returns the graph with only the `n` edges of largest effect and the nodes that they join.
    #[must_use]
    pub fn strongest(&self, n: usize) -> Self {
        let mut edges = self.edges.clone();
        edges.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        edges.truncate(n);
        let joined = |node: &&GraphNode| edges.iter().any(|e| e.from == node.name || e.to == node.name);
        Self { nodes: self.nodes.iter().filter(joined).cloned().collect(), edges }
    }

    /// Returns the graph in Graphviz' DOT language.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut dot = String::from("digraph circuit {\n  rankdir=BT;\n  node [shape=box, style=filled];\n");
        for node in &self.nodes {
            let (name, color) = (quoted(&node.name), self.color(&node.class));
            // Writing into a String cannot fail.
            let (class, border) = (quoted(&node.class), node.standing.border());
            let _ = writeln!(dot, "  {name} [fillcolor={}, tooltip={class}, penwidth={border}];", quoted(color));
        }
        for layer in self.layers() {
            let names: Vec<String> = self.in_layer(layer).map(|node| quoted(&node.name)).collect();
            let _ = writeln!(dot, "  {{ rank=same; {}; }}", names.join("; "));
        }
        for edge in &self.edges {
            let label = quoted(&format!("{} {:.3}", edge.kind, edge.effect));
            let style = if edge.effect > 0.0 { "dashed" } else { "solid" };
            let (from, to, color) = (quoted(&edge.from), quoted(&edge.to), quoted(color_of(&edge.kind)));
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

    fn width(&self, edge: &GraphEdge) -> f32 {
        let largest = self.edges.iter().fold(f32::MIN_POSITIVE, |m, e| m.max(e.effect.abs()));
        0.6 + 4.4 * edge.effect.abs() / largest
    }

    /// Returns each node with the center of its box.
    fn places(&self) -> Vec<(&GraphNode, [usize; 2])> {
        let layers = self.layers();
        let widest = layers.iter().map(|&l| self.in_layer(l).count()).max().unwrap_or(0);
        let mut places = Vec::new();
        for (row, &layer) in layers.iter().enumerate() {
            let n = self.in_layer(layer).count();
            let indent = MARGIN + (widest - n) * COLUMN / 2 + COLUMN / 2;
            let y = (layers.len() - 1 - row) * ROW + ROW / 2;
            places.extend(self.in_layer(layer).enumerate().map(|(i, node)| (node, [indent + i * COLUMN, y])));
        }
        places
    }

    pub(crate) fn render(&self, id: &str) -> Markup {
        let places = self.places();
        let width = places.iter().map(|(_, [x, _])| x + COLUMN / 2).max().unwrap_or(0) + MARGIN;
        let height = self.layers().len() * ROW;
        let at = |name: &str| places.iter().find(|(node, _)| node.name == name).map(|(_, place)| *place);
        let half = BOX[1] / 2;
        html! {
            p.legend {
                @for (kind, color) in KINDS {
                    @if self.edges.iter().any(|e| e.kind == kind) {
                        span { span style={ "color:" (color) } { "━ " } (if kind.is_empty() { "to the logits" } else { kind }) }
                    }
                }
                span { "┅ effect above 0" }
                @for class in self.classes() {
                    span { span style={ "color:" (self.color(class)) ";-webkit-text-stroke:1px #888" } { "■ " } (class) }
                }
            }
            div.frame {
                svg.graph width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
                    defs {
                        @for (kind, color) in KINDS {
                            (PreEscaped(format!(
                                "<marker class=\"into-{kind}\" id=\"{id}-{kind}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"9\" \
                                 markerHeight=\"9\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\" \
                                 fill=\"{color}\"/></marker>"
                            )))
                        }
                    }
                    @for edge in &self.edges {
                        @if let (Some([x1, y1]), Some([x2, y2])) = (at(&edge.from), at(&edge.to)) {
                            // Edges into q, k and v end next to each other; curves leave space for
                            // the nodes between.
                            @let shift = match edge.kind.as_str() { "q" => -16.0, "v" => 16.0, _ => 0.0 };
                            @let (x1, y1, x2, y2) = (x1 as f32, (y1 - half) as f32, x2 as f32 + shift, (y2 + half) as f32);
                            @let bend = (y1 - y2) / 2.0;
                            // A line past other rows bends around their nodes.
                            @let rows = ((y1 - y2) / ROW as f32).floor();
                            @let aside = if x1 < width as f32 / 2.0 { -34.0 * rows } else { 34.0 * rows };
                            @let (c1, c2) = (x1 + aside, x2 + aside);
                            path class={ "into-" (edge.kind) } d={ "M" (x1) " " (y1) "C" (c1) " " (y1 - bend) " " (c2) " " (y2 + bend) " " (x2) " " (y2) }
                                fill="none" stroke=(color_of(&edge.kind)) stroke-width=(format!("{:.2}", self.width(edge)))
                                stroke-opacity="0.75" stroke-dasharray=(if edge.effect > 0.0 { "5 4" } else { "none" })
                                marker-end={ "url(#" (id) "-" (edge.kind) ")" } {
                                title { (edge.from) " → " (edge.to) " " (edge.kind) ": " (number(edge.effect)) }
                            }
                        }
                    }
                    @for (node, [x, y]) in &places {
                        rect x=(x - BOX[0] / 2) y=(y - half) width=(BOX[0]) height=(BOX[1]) rx="4" fill=(self.color(&node.class))
                            stroke=(if node.standing == Emphasis::Bold { "#222" } else { "#888" })
                            stroke-width=(node.standing.border()) { title { (node.class) } }
                        text x=(x) y=(y + 5) text-anchor="middle" font-size="13" fill="#1a1a1a" { (node.name) }
                    }
                }
            }
        }
    }
}

fn color_of(kind: &str) -> &'static str {
    KINDS.iter().find(|(k, _)| *k == kind).map_or(KINDS[3].1, |(_, color)| color)
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
        }
    }

    #[test]
    fn graphviz_accepts_the_written_graph() {
        let dot = graph().to_dot();
        assert!(dot.starts_with("digraph circuit {") && dot.ends_with("}\n"), "{dot}");
        assert!(dot.contains("\"L0H1\" -> \"L2H3\" [label=\"q -0.200\""), "{dot}");
        assert!(dot.contains("duplicate \\\"token\\\""), "{dot}");
        assert!(dot.contains("style=dashed"), "{dot}");
    }

    #[test]
    fn every_node_and_edge_is_drawn() {
        let drawn = graph().render("g").into_string();
        assert_eq!(drawn.matches("<rect").count(), 3);
        assert_eq!(drawn.matches("stroke-opacity").count(), 2);
        assert!(drawn.contains("L0H1 → L2H3 q: -0.2000"), "{drawn}");
        let strongest = graph().strongest(1);
        assert_eq!((strongest.nodes.len(), strongest.edges[0].kind.as_str()), (2, "q"));
        let json = graph().to_json();
        assert_eq!((json["nodes"].as_array().unwrap().len(), json["edges"][0]["input"].as_str()), (3, Some("q")));
    }
}
