//! The paths from head to head, as a graph.

use std::collections::BTreeMap;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::attribution::{NormJacobian, PathOptions, PerPrompt, head_path_attribution};
use rewire_analysis::path::{Edge, FreezePolicy, HeadEdges, Input, head_edges};
use rewire_analysis::run::{Direction, Options};
use rewire_model::Transformer;
use rewire_report::{Graph, GraphEdge, GraphNode, Standing};
use rewire_tasks::LogitDiff;

use super::Arguments;
use super::analyse::{Head, Step};
use super::circuit::Circuit;
use super::data::Data;
use crate::output::head_name;
use rewire_studies::Setup;

/// Edges of the whole model up to which all are patched exactly.
const ALL: usize = 2000;

pub(super) struct Edges {
    /// The edges that were patched exactly.
    pub(super) exact: HeadEdges,
    /// How many there are in all.
    pub(super) all: usize,
    /// Mean effects of those that were kept, largest first.
    pub(super) pruned: Vec<(Edge, f32)>,
    pub(super) threshold: f32,
    /// The kept edges and the direct effects on the logits.
    pub(super) graph: Graph,
}

/// Patches every edge exactly, or, of many, those of largest attribution.
pub(super) fn find<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    data: &Data,
    circuit: &Circuit,
    direct: &Step,
    arguments: &Arguments,
) -> anyhow::Result<Edges> {
    let config = model.config();
    let (layers, heads) = (config.n_layers, config.n_heads);
    let every: Vec<Head> = (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect();
    let all = Edge::between(&every);
    let n_all = all.len();
    let metric = LogitDiff::new(&data.pairs);
    let options = Options { direction: Direction::Noising, ..setup.options(model, data.pairs.width()) };
    let chosen = match n_all {
        0..=ALL => all,
        _ => {
            let path_options = PathOptions { norm: NormJacobian::Exact, per_prompt: PerPrompt::Mean };
            let paths = setup.step("attribution of all paths", |progress| {
                head_path_attribution(model, &data.pairs, &metric, path_options, &Options { progress, ..options })
            })?;
            let sums = crate::paths::over_positions(&paths.mean()); // [input, head_end, head_start]
            let size = |edge: &Edge| {
                let input = [Input::Q, Input::K, Input::V].iter().position(|input| *input == edge.input).unwrap_or(0);
                sums[[input, edge.to.0 * heads + edge.to.1, edge.from.0 * heads + edge.from.1]].abs()
            };
            let mut ranked: Vec<(Edge, f32)> = all.into_iter().map(|edge| (edge, size(&edge))).collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            ranked.into_iter().take(arguments.edges).map(|(edge, _)| edge).collect()
        }
    };
    let exact = setup.step("paths between heads", |progress| {
        let options = Options { progress, ..options };
        head_edges(&model.valid(), &data.pairs, &metric, &chosen, FreezePolicy::path_patching(), &options)
    })?;
    let largest = exact.outcome.mean().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let threshold = arguments.edge_threshold.unwrap_or(0.1 * largest);
    let pruned = exact.pruned(threshold);
    let graph = graph(&pruned, circuit, direct, layers, arguments.threshold);
    Ok(Edges { exact, all: n_all, pruned, threshold, graph })
}

/// The kept edges and the direct effects, with the heads that they join; those of the circuit stand out.
fn graph(pruned: &[(Edge, f32)], circuit: &Circuit, direct: &Step, layers: usize, threshold: f32) -> Graph {
    let mut edges = Vec::new();
    let mut nodes: BTreeMap<Head, GraphNode> = BTreeMap::new();
    let mut node = |(layer, head): Head| {
        let roles = circuit.with_roles.get(&(layer, head));
        let class = roles.and_then(|roles| roles.first()).map_or("other", |(role, _)| role.name());
        let name = head_name(layer, head);
        let standing = match circuit.members.iter().any(|member| member.head == (layer, head)) {
            true => Standing::Heavy,
            false => Standing::Plain,
        };
        let drawn = GraphNode { name: name.clone(), class: class.to_owned(), layer, standing };
        nodes.entry((layer, head)).or_insert(drawn);
        name
    };
    for (edge, effect) in pruned {
        let (from, to) = (node(edge.from), node(edge.to));
        edges.push(GraphEdge { from, to, kind: edge.input.to_string(), effect: *effect });
    }
    for ((layer, head), effect) in direct.effects().indexed_iter() {
        if effect.abs() >= threshold {
            let (from, to) = (node((layer, head)), "logits".to_owned());
            edges.push(GraphEdge { from, to, kind: String::new(), effect: *effect });
        }
    }
    let mut nodes: Vec<GraphNode> = nodes.into_values().collect();
    nodes.push(GraphNode { name: "logits".to_owned(), class: String::new(), layer: layers, standing: Standing::Plain });
    Graph { nodes, edges }
}
