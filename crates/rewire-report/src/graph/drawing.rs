//! The drawing of a graph: SVG for a report, and for a file of its own.

use maud::{Markup, html};

use super::layout::{Block, Layout, layered};
use super::{Emphasis, Graph, GraphEdge, GraphNode, color_of};
use crate::charts::common::{OPPOSES, SUPPORTS};
use crate::numbers::number;

/// Distance between two rows, and the most that edges between them add.
const GAPS: [f32; 2] = [48.0, 110.0];
/// Number of edges for which the least distance is enough, and what each further edge adds.
const CROWD: (usize, f32) = (30, 0.9);
/// Height of a node.
const HEIGHT: f32 = 36.0;
/// Least width of a node, and the widest that its edges make it.
const WIDTHS: [f32; 2] = [62.0, 420.0];
/// Space at each side.
const MARGIN: f32 = 14.0;
/// Width of a character of a name, and of the smaller text beside the graph.
const CHARACTER: [f32; 2] = [8.0, 6.4];
/// Height of a line of the legend.
const LINE: f32 = 22.0;
/// Inputs of heads, in the order in which they stand below a node.
const INPUTS: [&str; 3] = ["q", "k", "v"];

/// Returns the drawing as the contents of an SVG file that needs no other file.
///
/// Rows are layers, the first at the bottom, and edges lead upward. The width of an edge is the
/// size of its effect. Blue edges support the behavior; dashed red ones work against it. Edges into
/// the queries, keys and values of a head end at its letters q, k and v.
#[must_use]
pub fn svg(graph: &Graph, title: &str) -> String {
    let drawn = Drawing::new(graph);
    let [width, height] = [drawn.width.max(title.chars().count() as f32 * CHARACTER[0] + 2.0 * MARGIN), drawn.height];
    let [width, height] = [width, height + 30.0].map(|size| size.ceil());
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) }
            font-family="system-ui, Helvetica, Arial, sans-serif" {
            title { (title) }
            rect width=(width) height=(height) fill="#ffffff" {}
            text x=(MARGIN) y="22" font-size="15" font-weight="600" fill="#1a1a1a" { (title) }
            g transform="translate(0 30)" { (drawn.contents()) }
        }
    }
    .into_string()
}

/// Returns the drawing for a page.
pub(crate) fn render(graph: &Graph) -> Markup {
    let drawn = Drawing::new(graph);
    let [width, height] = [drawn.width, drawn.height].map(|size| size.ceil());
    html! {
        div.frame {
            svg.graph width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } { (drawn.contents()) }
        }
    }
}

/// A graph with the places of everything that is drawn.
struct Drawing<'a> {
    graph: &'a Graph,
    /// The layer of each row.
    layers: Vec<usize>,
    /// The vertical center of each row.
    heights: Vec<f32>,
    /// The place and width of each node.
    blocks: Vec<Block>,
    layout: Layout,
    /// By edge, the places of its nodes, and the places at which it starts and ends.
    edges: Vec<Option<([usize; 2], [f32; 2])>>,
    /// Space for the labels of rows.
    left: f32,
    width: f32,
    height: f32,
}

impl<'a> Drawing<'a> {
    fn new(graph: &'a Graph) -> Self {
        let layers = graph.layers();
        let at = |name: &str| graph.nodes.iter().position(|node| node.name == name);
        let ends: Vec<Option<[usize; 2]>> =
            graph.edges.iter().map(|edge| Some([at(&edge.from)?, at(&edge.to)?])).collect();
        let block = |(i, node): (usize, &GraphNode)| Block {
            row: layers.iter().position(|layer| *layer == node.layer).unwrap_or(0),
            width: width_of(node, &degrees(graph, &ends, i)),
        };
        let blocks: Vec<Block> = graph.nodes.iter().enumerate().map(block).collect();
        let joined: Vec<[usize; 2]> = ends.iter().flatten().copied().collect();
        let mut layout = layered(&blocks, &joined);
        // An edge whose nodes are not in the graph has no lanes.
        let mut lanes = std::mem::take(&mut layout.lanes).into_iter();
        layout.lanes = ends.iter().map(|ends| ends.and_then(|_| lanes.next()).unwrap_or_default()).collect();
        let longest = graph.rows.values().map(|label| label.chars().count()).max().unwrap_or(0);
        let left = MARGIN + if longest > 0 { longest as f32 * CHARACTER[1] + 16.0 } else { 0.0 };
        let spans = joined.iter().map(|[from, to]| [blocks[*from].row, blocks[*to].row]).collect::<Vec<_>>();
        let heights = heights(layers.len(), &spans);
        let edges = Vec::new();
        let mut drawing = Self { graph, layers, heights, blocks, layout, edges, left, width: 0.0, height: 0.0 };
        drawing.edges = drawing.with_ports(&ends);
        let legend = drawing.legend();
        let widest = legend.iter().map(|line| line.iter().map(Entry::width).sum::<f32>()).fold(0.0, f32::max);
        drawing.width = (left + drawing.layout.width).max(MARGIN + widest) + MARGIN;
        drawing.height = drawing.bottom() + legend.len() as f32 * LINE + MARGIN;
        drawing
    }

    /// Returns the nodes of each edge, and the places at which it leaves and enters them. Edges at
    /// one side of a node are next to each other, in the order of their other ends.
    fn with_ports(&self, ends: &[Option<[usize; 2]>]) -> Vec<Option<([usize; 2], [f32; 2])>> {
        let Layout { centers, lanes, .. } = &self.layout;
        let mut placed: Vec<Option<([usize; 2], [f32; 2])>> =
            ends.iter().map(|ends| ends.map(|[from, to]| ([from, to], [centers[from], centers[to]]))).collect();
        for (node, (block, center)) in self.blocks.iter().zip(centers).enumerate() {
            let of_side = |side: usize| (0..ends.len()).filter(move |&e| ends[e].is_some_and(|two| two[side] == node));
            let next = |edge: usize, side: usize| {
                let lane = if side == 0 { lanes[edge].first() } else { lanes[edge].last() };
                lane.copied().unwrap_or_else(|| ends[edge].map_or(0.0, |two| centers[two[1 - side]]))
            };
            let mut spread = |edges: Vec<usize>, side: usize, center: f32, width: f32| {
                let mut sorted: Vec<(f32, usize)> = edges.into_iter().map(|edge| (next(edge, side), edge)).collect();
                sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
                let gap = (width / sorted.len().max(1) as f32).min(6.0);
                let first = center - gap * (sorted.len().saturating_sub(1)) as f32 / 2.0;
                for (i, (_, edge)) in sorted.into_iter().enumerate() {
                    if let Some((_, ends)) = &mut placed[edge] {
                        ends[side] = first + gap * i as f32;
                    }
                }
            };
            spread(of_side(0).collect(), 0, *center, block.width - 10.0);
            let kinds = |kind: &str| of_side(1).filter(|&e| self.graph.edges[e].kind == kind).collect::<Vec<_>>();
            spread(kinds(""), 1, *center, block.width - 10.0);
            for (i, input) in INPUTS.iter().enumerate() {
                spread(kinds(input), 1, *center + port(i, block.width), block.width / 3.0 - 6.0);
            }
        }
        placed
    }

    /// Returns the vertical center of a row.
    fn y(&self, row: usize) -> f32 {
        self.heights[row]
    }

    /// Returns the lower end of the graph.
    fn bottom(&self) -> f32 {
        self.heights.first().map_or(0.0, |lowest| lowest + HEIGHT)
    }

    fn contents(&self) -> Markup {
        let mut order: Vec<usize> = (0..self.graph.edges.len()).collect();
        order.sort_by(|a, b| self.graph.edges[*a].effect.abs().total_cmp(&self.graph.edges[*b].effect.abs()));
        html! {
            @for (row, layer) in self.layers.iter().enumerate() {
                @if let Some(label) = self.graph.rows.get(layer) {
                    text.note x=(MARGIN) y=(places(self.y(row) + 4.0)) font-size="11" fill="#555555" { (label) }
                }
            }
            @for edge in order {
                @if let Some(path) = self.path(edge) {
                    (self.edge(&self.graph.edges[edge], &path))
                }
            }
            @for (i, node) in self.graph.nodes.iter().enumerate() { (self.node(i, node)) }
            @for (line, entries) in self.legend().iter().enumerate() {
                @let y = self.bottom() + (line as f32 + 0.5) * LINE;
                @for (i, entry) in entries.iter().enumerate() {
                    (entry.render(MARGIN + entries[..i].iter().map(Entry::width).sum::<f32>(), y))
                }
            }
        }
    }

    fn edge(&self, edge: &GraphEdge, path: &str) -> Markup {
        let class = class_of(edge.effect);
        html! {
            path class=(class) d=(path) fill="none" stroke=(color_of(edge.effect)) stroke-opacity="0.75"
                stroke-width=(format!("{:.2}", self.graph.width(edge)))
                stroke-dasharray=[(class == "opposes").then_some("6 3")] {
                title { (edge.from) " → " (edge.to) @if !edge.kind.is_empty() { " " (edge.kind) } ": " (number(edge.effect)) }
            }
        }
    }

    /// Returns the path of an edge: upward through its lanes.
    fn path(&self, edge: usize) -> Option<String> {
        let ([from, to], [start, end]) = self.edges[edge]?;
        let [first, last] = [self.blocks[from].row, self.blocks[to].row];
        let x = |x: f32| x + self.left;
        let half = HEIGHT / 2.0;
        let (mut at, mut y) = (x(start), self.y(first) - half);
        let mut path = format!("M{at:.1} {y:.1}");
        let mut curve_to = |next: f32, next_y: f32, path: &mut String| {
            let middle = (y + next_y) / 2.0;
            path.push_str(&format!("C{at:.1} {middle:.1} {next:.1} {middle:.1} {next:.1} {next_y:.1}"));
            (at, y) = (next, next_y - HEIGHT);
        };
        for (i, lane) in self.layout.lanes[edge].iter().enumerate() {
            let row = self.y(first + 1 + i);
            curve_to(x(*lane), row + half, &mut path);
            path.push_str(&format!("V{:.1}", row - half));
        }
        curve_to(x(end), self.y(last) + half, &mut path);
        Some(path)
    }

    fn node(&self, i: usize, node: &GraphNode) -> Markup {
        let (x, y) = (self.left + self.layout.centers[i], self.y(self.blocks[i].row));
        let width = self.blocks[i].width;
        let enters = |e: &GraphEdge| e.to == node.name && !e.kind.is_empty();
        let has_ports = self.graph.edges.iter().any(enters);
        let border = match (node.effect, node.standing) {
            (Some(effect), _) => color_of(effect),
            (None, Emphasis::Bold) => "#222222",
            (None, Emphasis::Normal) => "#888888",
        };
        html! {
            rect x=(places(x - width / 2.0)) y=(places(y - HEIGHT / 2.0)) width=(places(width)) height=(HEIGHT) rx="4"
                fill=(self.graph.color(&node.class)) stroke=(border)
                stroke-width=(format!("{:.2}", self.graph.border(node))) {
                title { (node.name) @if !node.class.is_empty() { ": " (node.class) } @if let Some(effect) = node.effect { ": " (number(effect)) } }
            }
            text x=(places(x)) y=(places(y + if has_ports { -1.0 } else { 5.0 })) text-anchor="middle" font-size="13" fill="#1a1a1a" { (node.name) }
            @if has_ports {
                @for (i, input) in INPUTS.iter().enumerate() {
                    text x=(places(x + port(i, width))) y=(places(y + HEIGHT / 2.0 - 4.0)) text-anchor="middle" font-size="10" fill="#555555" { (input) }
                }
            }
        }
    }

    /// Returns the lines of the legend.
    fn legend(&self) -> Vec<Vec<Entry<'a>>> {
        let effects = self.graph.effects();
        let largest = effects.iter().fold(0.0, |most, effect| effect.abs().max(most));
        let mut signs = Vec::new();
        if effects.iter().any(|effect| *effect < 0.0) {
            signs.push(Entry::Line("supports", "supports the behavior".to_owned()));
        }
        if effects.iter().any(|effect| *effect > 0.0) {
            signs.push(Entry::Line("opposes", "works against it".to_owned()));
        }
        if largest > 0.0 {
            signs.push(Entry::Text(format!("width: size of the effect, at most {}", number(largest))));
        }
        let mut lines = vec![signs, Vec::new()];
        for class in self.graph.classes() {
            let entry = Entry::Class(self.graph.color(class), class);
            let room = WIDTHS[1].max(self.left + self.layout.width);
            match lines.last_mut().filter(|line| line.iter().chain([&entry]).map(Entry::width).sum::<f32>() < room) {
                Some(line) => line.push(entry),
                None => lines.push(vec![entry]),
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }
}

/// A part of the legend.
enum Entry<'a> {
    /// A line of an edge's class, and its meaning.
    Line(&'static str, String),
    Text(String),
    /// The color of a class of nodes, and its name.
    Class(&'static str, &'a str),
}

impl Entry<'_> {
    fn width(&self) -> f32 {
        let (mark, text) = match self {
            Entry::Line(_, text) => (36.0, text.as_str()),
            Entry::Text(text) => (0.0, text.as_str()),
            Entry::Class(_, text) => (20.0, *text),
        };
        mark + text.chars().count() as f32 * CHARACTER[1] + 18.0
    }

    fn render(&self, x: f32, y: f32) -> Markup {
        let label = |text: &str, from: f32| {
            html! { text.note x=(places(from)) y=(places(y + 4.0)) font-size="12" fill="#555555" { (text) } }
        };
        match self {
            Entry::Line(class, text) => html! {
                path class=(class) d={ "M" (places(x)) " " (places(y)) "h30" } stroke-width="3"
                    stroke=(if *class == "opposes" { OPPOSES } else { SUPPORTS })
                    stroke-dasharray=[(*class == "opposes").then_some("6 3")] {}
                (label(text, x + 36.0))
            },
            Entry::Text(text) => label(text, x),
            Entry::Class(color, name) => html! {
                rect x=(places(x)) y=(places(y - 7.0)) width="14" height="14" rx="3" fill=(color) stroke="#888888" {}
                (label(name, x + 20.0))
            },
        }
    }
}

/// Returns the vertical centers of rows, the first at the bottom. Rows with many edges between
/// them, each from a row to a later one, are further apart.
fn heights(rows: usize, edges: &[[usize; 2]]) -> Vec<f32> {
    let mut y = HEIGHT;
    let mut heights = vec![0.0; rows];
    for row in (0..rows).rev() {
        heights[row] = y;
        let between = edges.iter().filter(|[from, to]| *from < row && row <= *to).count();
        let more = between.saturating_sub(CROWD.0) as f32 * CROWD.1;
        y += HEIGHT + GAPS[0] + more.min(GAPS[1]);
    }
    heights
}

/// Returns a coordinate with one decimal.
fn places(value: f32) -> String {
    format!("{value:.1}")
}

/// Returns the place of an input of a node, from its center.
fn port(input: usize, width: f32) -> f32 {
    (input as f32 - 1.0) * width / 3.0
}

/// Returns the number of edges out of a node, and into each of its inputs.
fn degrees(graph: &Graph, ends: &[Option<[usize; 2]>], node: usize) -> [usize; 5] {
    let mut degrees = [0; 5];
    for (edge, ends) in graph.edges.iter().zip(ends) {
        let Some([from, to]) = ends else { continue };
        degrees[0] += usize::from(*from == node);
        let input = INPUTS.iter().position(|input| edge.kind == *input).map_or(1, |input| 2 + input);
        degrees[input] += usize::from(*to == node);
    }
    degrees
}

/// Returns the width of a node: its name fits, and its edges do not merge.
fn width_of(node: &GraphNode, degrees: &[usize; 5]) -> f32 {
    let name = node.name.chars().count() as f32 * CHARACTER[0] + 12.0;
    let [most, input] = [degrees[..2].iter().max(), degrees[2..].iter().max()].map(|n| *n.unwrap_or(&0) as f32);
    let edges = (5.0 * most + 10.0).max(3.0 * (5.0 * input + 6.0));
    name.max(WIDTHS[0]).max(edges.min(WIDTHS[1]))
}

fn class_of(effect: f32) -> &'static str {
    match effect {
        _ if effect < 0.0 => "supports",
        _ if effect > 0.0 => "opposes",
        _ => "neither",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn graph(edges: &[(&str, &str, &str, f32)]) -> Graph {
        let mut graph = Graph { rows: BTreeMap::from([(0, "layer 0".to_owned())]), ..Graph::default() };
        for (from, to, kind, effect) in edges {
            for name in [from, to] {
                let layer = name.chars().nth(1).and_then(|c| c.to_digit(10)).unwrap_or(9) as usize;
                if graph.nodes.iter().all(|node| node.name != *name) {
                    let (name, class) = ((*name).to_owned(), "head".to_owned());
                    graph.nodes.push(GraphNode { name, class, layer, standing: Emphasis::Normal, effect: None });
                }
            }
            let [from, to, kind] = [from, to, kind].map(|text| (*text).to_owned());
            graph.edges.push(GraphEdge { from, to, kind, effect: *effect });
        }
        graph
    }

    /// Returns the numbers of an attribute, in the order of the elements that begin so.
    fn numbers(drawn: &str, element: &str, attribute: &str) -> Vec<f32> {
        let of = |rest: &str| rest.split_once(&format!("{attribute}=\""))?.1.split('"').next()?.parse().ok();
        drawn.split(element).skip(1).filter_map(of).collect()
    }

    #[test]
    fn every_node_and_edge_is_drawn_in_the_color_of_its_sign() {
        let drawn = svg(&graph(&[("a0", "a2", "q", -0.2), ("a2", "logits", "", 0.1)]), "A & B");
        assert!(drawn.starts_with("<svg xmlns=") && drawn.ends_with("</svg>"), "{drawn}");
        assert!(drawn.contains("A &amp; B") && drawn.contains(">layer 0<"), "{drawn}");
        assert!(drawn.contains("<title>a0 → a2 q: -0.2000</title>"), "{drawn}");
        let edge = |class: &str| drawn.split("<path ").skip(1).find(|path| path.contains(class)).unwrap();
        assert!(edge("class=\"supports\"").contains(SUPPORTS) && !edge("class=\"supports\"").contains("dasharray"));
        assert!(edge("class=\"opposes\"").contains(OPPOSES) && edge("class=\"opposes\"").contains("dasharray"));
        assert!(drawn.contains("at most 0.2000"), "{drawn}");
    }

    #[test]
    fn edges_into_a_head_end_at_its_inputs() {
        let drawn = svg(&graph(&[("a0", "a2", "q", -1.0), ("a0", "a2", "k", -2.0), ("a0", "a2", "v", -3.0)]), "");
        let ends: Vec<f32> = drawn
            .split("<path ")
            .skip(1)
            .filter_map(|path| path.split_once(" d=\"")?.1.split('"').next()?.rsplit(' ').nth(1)?.parse().ok())
            .collect();
        // The strongest edge is drawn last: first q, then k, then v.
        assert_eq!(ends.len(), 3, "{drawn}");
        assert!(ends[0] + 10.0 < ends[1] && ends[1] + 10.0 < ends[2], "{ends:?}");
    }

    #[test]
    fn boxes_of_a_dense_graph_do_not_overlap_and_lie_inside() {
        let names: Vec<String> = (0..30).map(|i| format!("a{}.h{i}", i / 6)).collect();
        let mut edges = Vec::new();
        for (i, from) in names.iter().enumerate() {
            for (j, to) in names.iter().enumerate().filter(|(j, _)| j / 6 > i / 6 && (i * 5 + j * 3) % 3 == 0) {
                edges.push((from.as_str(), to.as_str(), ["q", "k", "v"][(i + j) % 3], (i as f32 - j as f32) / 9.0));
            }
        }
        assert!(edges.len() > 100, "{}", edges.len());
        let drawn = svg(&graph(&edges), "dense");
        let nodes = drawn.replace("<rect width", "<page width");
        let [x, y, width] = ["x", "y", "width"].map(|attribute| numbers(&nodes, "<rect ", attribute));
        let page = numbers(&drawn, "<svg ", "width")[0];
        let drawn_nodes: std::collections::BTreeSet<&str> = edges.iter().flat_map(|edge| [edge.0, edge.1]).collect();
        // The last is the class in the legend.
        assert_eq!(x.len(), drawn_nodes.len() + 1);
        for i in 0..drawn_nodes.len() {
            assert!(x[i] >= 0.0 && x[i] + width[i] <= page, "{i}");
            for j in (0..i).filter(|&j| y[j] == y[i]) {
                assert!(x[i] + width[i] < x[j] || x[j] + width[j] < x[i], "boxes {i} and {j} overlap");
            }
        }
    }

    #[test]
    fn an_edge_without_its_nodes_is_left_out() {
        let mut lost = graph(&[("a0", "a2", "q", 1.0), ("a0", "logits", "", 1.0)]);
        lost.nodes.retain(|node| node.name != "a2");
        assert_eq!(svg(&lost, "").matches("stroke-opacity").count(), 1);
        assert!(svg(&Graph::default(), "nothing").contains("nothing"));
    }
}
