//! The choice of the nodes whose numbers are computed again, and their effects.

use ndarray::{Array2, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_analysis::edges::{Edge, EdgeGraph};
use rewire_analysis::patching::{GroupOutcome, NodeList, PlacedNode, placed_effects, placed_nodes};
use rewire_analysis::{Effects, Outcome};
use rewire_report::names::counted;

use crate::shards::{Counted, Divisible};
use crate::sweep::choices::{AlignName, MethodName};
use crate::sweep::findings::{Findings, LISTED, table_name};
use crate::sweep::inputs::Inputs;
use crate::sweep::prepared::Prepared;
use crate::sweep::single::SingleNodes;

/// The choice of a share of the nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// The share, above 0 and at most 1.
    pub(crate) share: f64,
    pub(crate) seed: u64,
}

/// The numbers that are computed again.
pub(super) enum Share {
    /// All of them, for this reason.
    Whole(&'static str),
    /// Some nodes of all nodes of the kinds.
    Nodes { chosen: Vec<PlacedNode>, of: usize },
    /// Some groups, by number, of a list of nodes.
    Listed { list: NodeList, chosen: Vec<usize>, of: usize },
    /// Some edges.
    Edges { chosen: Vec<Edge>, of: usize },
}

impl Share {
    /// Chooses what to compute again.
    pub(super) fn new(prepared: &Prepared, choice: Choice) -> anyhow::Result<Self> {
        let Inputs { pairs, nodes, single, .. } = prepared.inputs();
        let arguments = prepared.arguments;
        if choice.share >= 1.0 {
            return Ok(Share::Whole("--share 1"));
        }
        if !arguments.chosen_edges().is_empty() {
            return Ok(Share::Whole("--nodes names its edges one by one"));
        }
        match arguments.method {
            MethodName::AttributionPatching => return Ok(Share::Whole("one backward pass gives all estimates")),
            MethodName::IntegratedGradients => {
                return Ok(Share::Whole("the gradients of a line give all attributions"));
            }
            MethodName::LogitAttribution => return Ok(Share::Whole("one run gives all contributions")),
            MethodName::ActivationPatching | MethodName::Ablation | MethodName::PathPatching => {}
        }
        if arguments.align == AlignName::End && pairs.lengths().iter().any(|length| *length != pairs.width()) {
            return Ok(Share::Whole("a node that is counted from END has another position in each prompt"));
        }
        Ok(match single {
            _ if arguments.wants_edges() => {
                let edges: Vec<Edge> = EdgeGraph::new(&prepared.source.config).edges().collect();
                Share::Edges { of: edges.len(), chosen: choice.of(edges) }
            }
            Some(single) => {
                let list = single.list(pairs)?;
                let of = list.groups(pairs).len();
                Share::Listed { list, chosen: choice.of((0..of).collect()), of }
            }
            None => {
                let all = placed_nodes(nodes, &prepared.source.config, pairs);
                Share::Nodes { of: all.len(), chosen: choice.of(all) }
            }
        })
    }

    /// Returns a sentence on what is computed again.
    pub(super) fn in_words(&self, prepared: &Prepared, seed: u64) -> String {
        let pairs = counted(prepared.inputs().pairs.len(), "prompt pair");
        let (n, of, what) = match self {
            Share::Whole(reason) => return format!("computed again: all numbers, over {pairs} ({reason})"),
            Share::Nodes { chosen, of } => (chosen.len(), *of, "node"),
            Share::Listed { chosen, of, .. } => (chosen.len(), *of, "node"),
            Share::Edges { chosen, of } => (chosen.len(), *of, "edge"),
        };
        format!(
            "computed again: {n} of {} (seed {seed}), each over {pairs}, and the metric of every unpatched prompt",
            counted(of, what)
        )
    }

    /// Computes the chosen numbers again. All others are NaN.
    pub(super) fn recompute(&self, prepared: &Prepared) -> anyhow::Result<Findings> {
        let inputs = prepared.inputs();
        let list = |nodes| SingleNodes::List(NodeList::new(nodes));
        match self {
            Share::Whole(_) => prepared.compute(&(), Counted::Patches),
            Share::Edges { chosen, .. } => prepared.recompute(Inputs { edges: Some(chosen), ..inputs }),
            Share::Nodes { chosen, .. } => {
                let single = list(chosen.iter().map(|placed| placed.node.clone()).collect());
                let found = prepared.recompute(Inputs { single: Some(&single), ..inputs })?;
                Ok(place(found, prepared, chosen))
            }
            Share::Listed { list: whole, chosen, .. } => {
                let groups = whole.groups(inputs.pairs);
                let single = list(chosen.iter().flat_map(|number| groups[*number].clone()).collect());
                let found = prepared.recompute(Inputs { single: Some(&single), ..inputs })?;
                Ok(place_in_list(found, prepared, whole, chosen))
            }
        }
    }
}

impl Choice {
    /// Returns the share of these items, in their order, at least one of them.
    fn of<T>(self, items: Vec<T>) -> Vec<T> {
        let n = (self.share * items.len() as f64).ceil().max(1.0) as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut order: Vec<(u64, usize)> = (0..items.len()).map(|number| (rng.next_u64(), number)).collect();
        order.sort_unstable();
        let mut is_chosen = vec![false; items.len()];
        order.iter().take(n).for_each(|(_, number)| is_chosen[*number] = true);
        items.into_iter().zip(is_chosen).filter(|(_, is_chosen)| *is_chosen).map(|(item, _)| item).collect()
    }
}

/// Puts the effects of a list of nodes at their places among all nodes of the kinds.
fn place(found: Findings, prepared: &Prepared, chosen: &[PlacedNode]) -> Findings {
    let Inputs { pairs, nodes: kinds, .. } = prepared.inputs();
    let config = &prepared.source.config;
    let mut names = Vec::new();
    let mut effects = Vec::new();
    // With --receivers-apart, there is one list of effects for each receiver.
    for (name, of_list) in found.names.iter().zip(&found.outcome.effects) {
        let placed = placed_effects(kinds, config, pairs, chosen, &of_list.values.view());
        let receiver = name.strip_prefix(LISTED).unwrap_or_default();
        names.extend(placed.iter().map(|effects| format!("{}{receiver}", table_name(effects))));
        effects.extend(placed);
    }
    let outcome = Outcome { effects, ..found.outcome };
    Findings { names, ..Findings::of(aligned(outcome, prepared)) }
}

/// Puts the effects of some groups at their places in the list of nodes.
fn place_in_list(found: Findings, prepared: &Prepared, list: &NodeList, chosen: &[usize]) -> Findings {
    let pairs = prepared.inputs().pairs;
    let Outcome { method, direction, scale, metric, baselines, vanished, effects } = found.outcome;
    let n_groups = list.groups(pairs).len();
    let place = |of_list: &Effects| {
        let mut values = Array2::from_elem((pairs.len(), n_groups), f32::NAN);
        for (group, of_node) in chosen.iter().zip(of_list.values.axis_iter(Axis(1))) {
            values.column_mut(*group).iter_mut().zip(&of_node).for_each(|(value, effect)| *value = *effect);
        }
        let (baselines, vanished) = (baselines.clone(), vanished.clone());
        let group = GroupOutcome { direction, scale, metric, baselines, vanished, values };
        list.outcome(method, group, pairs).effects
    };
    let effects = effects.iter().flat_map(place).collect();
    let outcome = Outcome { method, direction, scale, metric, baselines, vanished, effects };
    Findings { names: found.names, ..Findings::of(aligned(outcome, prepared)) }
}

/// Returns the outcome with positions counted from the end that `--align` names.
fn aligned(outcome: Outcome, prepared: &Prepared) -> Outcome {
    match prepared.arguments.align {
        AlignName::Start => outcome,
        AlignName::End => outcome.aligned_at_end(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_random_and_in_order() {
        let of = |share, seed, n: usize| Choice { share, seed }.of((0..n).collect::<Vec<_>>());
        assert_eq!(of(0.1, 0, 48).len(), 5);
        assert_eq!(of(0.001, 0, 48).len(), 1);
        assert!(of(0.5, 1, 0).is_empty());
        let [first, second]: [Vec<usize>; 2] = [0, 1].map(|seed| of(0.5, seed, 100));
        assert!(first.is_sorted() && first != second && first == of(0.5, 0, 100));
        // Every item is chosen about as often as any other.
        let mut times = [0_usize; 10];
        (0..1000).flat_map(|seed| of(0.3, seed, 10)).for_each(|item| times[item] += 1);
        assert!(times.iter().all(|times| (240..360).contains(times)), "{times:?}");
    }
}
