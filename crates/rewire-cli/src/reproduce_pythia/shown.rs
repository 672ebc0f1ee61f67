//! The results, with the uncertainty of the effects and the graph of the paths.

use std::collections::BTreeMap;
use std::ops::Deref;

use rewire_analysis::path::Edge;
use rewire_analysis::stats::Proportion;
use rewire_circuits::PathStep;
use rewire_hooks::Head;
use rewire_report::{Emphasis, Graph, GraphEdge, GraphNode};
use rewire_studies::pythia::{self, Circuit};

use super::arguments::Arguments;
use rewire_report::Certainty;

/// A step of path patching, with the uncertainty of its effects.
pub(super) struct Step<'a> {
    step: &'a PathStep,
    pub(super) certainty: Certainty,
}

/// The results of the study, with the uncertainty and the graph that the report needs.
pub(super) struct Found<'a> {
    found: &'a pythia::Found,
    /// The steps that ran, by the names of their tables.
    pub(super) steps: Vec<(&'static str, Step<'a>)>,
    /// The graph of the kept paths and of the direct effects on the logits.
    pub(super) graph: Graph,
}

impl<'a> Found<'a> {
    pub(super) fn new(found: &'a pythia::Found, arguments: &Arguments) -> Self {
        let clusters = found.data.pairs.clusters();
        let further = [
            ("queries", &found.queries),
            ("direct-inhibitors-values", &found.direct_values),
            ("inhibitors-values", &found.values),
            ("keys", &found.keys),
        ];
        let further = further.into_iter().filter_map(|(name, step)| step.as_ref().map(|step| (name, step)));
        let sure = |(name, step): (&'static str, &'a PathStep)| {
            let certainty = Certainty::new(&step.outcome.effects[0], &clusters, arguments.seed);
            (name, Step { step, certainty })
        };
        let steps = [("direct", &found.direct)].into_iter().chain(further).map(sure).collect();
        let layers = found.direct.effects().nrows();
        let graph = graph(&found.edges.pruned, &found.circuit, &found.direct, layers, arguments.threshold);
        Self { found, steps, graph }
    }

    /// Returns on how many clean prompts the logit of IO is above the logit of S.
    pub(super) fn right_answers(&self) -> Proportion {
        Proportion::of(self.parts.baselines.clean.iter().map(|difference| *difference > 0.0))
    }

    /// Returns a step by the name of its tables, if it ran.
    pub(super) fn step(&self, name: &str) -> Option<&Step<'a>> {
        self.steps.iter().find(|(of, _)| *of == name).map(|(_, step)| step)
    }
}

impl Deref for Found<'_> {
    type Target = pythia::Found;

    fn deref(&self) -> &pythia::Found {
        self.found
    }
}

impl Deref for Step<'_> {
    type Target = PathStep;

    fn deref(&self) -> &PathStep {
        self.step
    }
}

/// Returns the graph of the kept edges and of the direct effects. The circuit's heads are bold.
fn graph(pruned: &[(Edge, f32)], circuit: &Circuit, direct: &PathStep, layers: usize, threshold: f32) -> Graph {
    let mut edges = Vec::new();
    let mut nodes: BTreeMap<Head, GraphNode> = BTreeMap::new();
    let mut node = |head: Head| {
        let roles = circuit.with_roles.get(&head);
        let class = roles.and_then(|roles| roles.first()).map_or("other", |(role, _)| role.name());
        let name = head.to_string();
        let standing = match circuit.members.iter().any(|member| member.head == head) {
            true => Emphasis::Bold,
            false => Emphasis::Normal,
        };
        let (layer, class) = (head.layer, class.to_owned());
        let drawn = GraphNode { name: name.clone(), class, layer, standing, effect: None };
        nodes.entry(head).or_insert(drawn);
        name
    };
    for (edge, effect) in pruned {
        let (from, to) = (node(edge.from), node(edge.to));
        edges.push(GraphEdge { from, to, kind: edge.input.short_name().to_owned(), effect: *effect });
    }
    for (place, effect) in direct.effects().indexed_iter() {
        if effect.abs() >= threshold {
            let (from, to) = (node(place.into()), "logits".to_owned());
            edges.push(GraphEdge { from, to, kind: String::new(), effect: *effect });
        }
    }
    let mut nodes: Vec<GraphNode> = nodes.into_values().collect();
    nodes.push(GraphNode {
        name: "logits".to_owned(),
        class: String::new(),
        layer: layers,
        standing: Emphasis::Normal,
        effect: None,
    });
    let rows = (0..layers).map(|layer| (layer, format!("layer {layer}"))).collect();
    Graph { nodes, edges, rows }
}
