//! The finding of a sweep: the largest effects, how sure they are, and how far they are from exact
//! effects.

use rewire_analysis::attribution::EdgeAttribution;
use rewire_analysis::edges::Edge;
use rewire_analysis::{Effects, Method, Outcome};
use rewire_report::charts::{self, Meaning, Ranked};
use rewire_report::edge_agreement::EdgeAgreements;
use rewire_report::numbers::{interval, number};
use rewire_report::{Page, head_edges, names, noise, units};
use rewire_tasks::PromptPairs;

use crate::sweep::arguments::Arguments;
use crate::sweep::findings::{ChosenEdges, Findings};
use crate::sweep::results::agreements;

/// Number of nodes in the figure.
const DRAWN: usize = 10;

/// Sets the finding of the page.
pub(super) fn add(page: &mut Page, found: &Findings, pairs: &PromptPairs, arguments: &Arguments) {
    let meaning = match found.screened {
        // The figure shows exact effects, which have a sign.
        Some(_) => Meaning::of(&found.outcome),
        None => found.meaning(),
    };
    let (tables, mut nodes): (Vec<usize>, Vec<Ranked>) = largest_nodes(found, pairs).into_iter().unzip();
    if !arguments.intervals {
        nodes.iter_mut().for_each(|node| node.interval = None);
    }
    let interval_name = found.certainty.first().and_then(|certainty| certainty.interval_name());
    let first = match (&found.edges, &found.paths) {
        _ if found.chosen.is_some() => {
            largest_of_edges(found.chosen.iter().flat_map(ChosenEdges::largest).next(), found)
        }
        (Some(edges), _) => largest_of_edges(edges.largest(1).first().copied(), found),
        (None, Some(edges)) if found.outcome.effects.is_empty() => largest_edge(edges, &found.outcome),
        _ => largest_in_words(&nodes, noun(found), meaning, &interval_name.unwrap_or_default()),
    };
    let sentences = [first, how_sure(found, tables.first().copied().unwrap_or(0), pairs), how_exact(found, pairs)];
    let figure = (!nodes.is_empty()).then(|| charts::ranking("Largest effects", &nodes, meaning));
    page.finding(&sentences, figure);
}

/// Returns the effects to rank: the exact effects of verified nodes, or else the effects of the
/// method.
fn ranked(found: &Findings) -> &Outcome {
    found.screened.as_ref().map_or(&found.outcome, |screened| &screened.exact)
}

/// Returns the nodes of largest effect over all tables, largest first, each with the number of its
/// table. Nodes whose effect is only rounding are left out. Exact effects of verified nodes have no
/// intervals, because the certainty is that of the estimates.
fn largest_nodes(found: &Findings, pairs: &PromptPairs) -> Vec<(usize, Ranked)> {
    let outcome = ranked(found);
    let floor = noise::floor(outcome);
    let mut all: Vec<(usize, Vec<usize>, f32)> = Vec::new();
    for (table, effects) in outcome.effects.iter().enumerate() {
        // A skipped node has no value.
        let mean = effects.mean().mapv(|value| if value.is_nan() { 0.0 } else { value });
        let largest = names::largest(&mean, DRAWN).into_iter();
        all.extend(largest.map(|(place, value)| (table, place, value)));
    }
    all.retain(|(.., value)| *value != 0.0 && value.abs() >= floor);
    all.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
    all.truncate(DRAWN);
    let node = |(table, place, effect): (usize, Vec<usize>, f32)| {
        let effects = &outcome.effects[table];
        let certainty = found.certainty.get(table).filter(|_| found.screened.is_none());
        let ends = certainty.and_then(|certainty| certainty.ends(effects, std::slice::from_ref(&place)));
        let interval = ends.and_then(|ends| ends.first().copied()).filter(|ends| !ends[0].is_nan());
        (table, Ranked { name: name(found, table, effects, &place, pairs), effect, interval })
    };
    all.into_iter().map(node).collect()
}

/// Returns the name of a node, with the name of its table unless the node's name says it.
fn name(found: &Findings, table: usize, effects: &Effects, place: &[usize], pairs: &PromptPairs) -> String {
    let node = names::of_node(effects, place, pairs);
    let is_clear = found.names.len() == 1 && (effects.kind.is_of_heads() || !effects.nodes.is_empty());
    if is_clear { node } else { format!("{} {node}", found.names[table]) }
}

/// Returns what the numbers of a method are called.
fn noun(found: &Findings) -> &'static str {
    match found.outcome.method {
        Method::AttributionPatching if found.screened.is_some() => "exact effect among the verified nodes",
        Method::AttributionPatching => "estimated effect",
        Method::IntegratedGradients => "attribution",
        Method::LogitAttribution => "direct contribution",
        Method::ActivationPatching | Method::Ablation | Method::PathPatching => "effect",
    }
}

/// Returns a value with its unit.
fn quantity(value: f32, unit: &str) -> String {
    let value = number(value);
    match unit {
        units::SHARE => format!("{value} of the clean–corrupted difference"),
        "probability" => format!("{value} in probability"),
        "share of prompts" => format!("{value} of the prompts"),
        unit => format!("{value} {unit}"),
    }
}

/// Returns which nodes have the largest effects.
fn largest_in_words(nodes: &[Ranked], noun: &str, meaning: Meaning, interval_name: &str) -> String {
    let Some((first, others)) = nodes.split_first() else { return noise::all_below(meaning.floor) };
    let ends = first.interval.map_or_else(String::new, |ends| format!(" ({interval_name} {})", interval(ends)));
    let role = match meaning.support.supports(first.effect) {
        Some(true) => " It supports the behavior.",
        Some(false) => " It opposes the behavior.",
        None => "",
    };
    let next: Vec<String> =
        others.iter().take(2).map(|node| format!("{} ({})", node.name, number(node.effect))).collect();
    let next = match next.as_slice() {
        [] => String::new(),
        [one] => format!(" Next is {one}."),
        several => format!(" Next are {}.", several.join(" and ")),
    };
    format!("The largest {noun} is that of {}: {}{ends}.{role}{next}", first.name, quantity(first.effect, meaning.unit))
}

/// Returns which head edge has the largest estimated effect, for a sweep of head edges alone.
fn largest_edge(edges: &EdgeAttribution, outcome: &Outcome) -> String {
    let mean = edges.mean();
    let meaning = Meaning::of(outcome);
    let sums = head_edges::over_positions(&mean);
    match head_edges::largest(&mean, 1).first() {
        Some(row) if !noise::is_all_below(&sums.view(), meaning.floor) => {
            format!("The head edge of largest estimated effect is {}: {} ({}).", row[0], row[1], meaning.unit)
        }
        _ => noise::all_below(meaning.floor),
    }
}

/// Returns which edge has the largest effect, for a sweep of edges.
fn largest_of_edges(largest: Option<(Edge, f32)>, found: &Findings) -> String {
    let meaning = Meaning::of(&found.outcome);
    let kind = match found.outcome.method {
        Method::AttributionPatching => "estimated effect",
        _ => "effect",
    };
    match largest {
        Some((edge, effect)) if effect.abs() >= meaning.floor && effect != 0.0 => {
            format!("The edge of largest {kind} is {edge}: {}.", quantity(effect, meaning.unit))
        }
        _ => noise::all_below(meaning.floor),
    }
}

/// Returns on how many prompts the model is right, how many prompts the effects of a table are
/// means over, and how many nodes stand out.
fn how_sure(found: &Findings, table: usize, pairs: &PromptPairs) -> String {
    let sure = match (found.certainty.get(table), found.names.len()) {
        (None, _) => format!("The effects are means over {} prompt pairs.", pairs.len()),
        (Some(certainty), 1) => certainty.in_short(),
        (Some(certainty), _) => format!("{}: {}", found.names[table], certainty.in_short()),
    };
    match found.correct {
        Some(correct) => format!("{} {sure}", correct.sentence()),
        None => sure,
    }
}

/// Returns whether the effects are those of edges.
fn has_edges(found: &Findings) -> bool {
    found.edges.is_some() || found.chosen.is_some()
}

/// Returns how far the numbers are from exact effects.
fn how_exact(found: &Findings, pairs: &PromptPairs) -> String {
    let exact = match found.outcome.method {
        Method::ActivationPatching if has_edges(found) => {
            "The effects are exact: the model ran once per edge with the edge patched.".to_owned()
        }
        Method::ActivationPatching => "The effects are exact: the model ran once per node with the node patched.".to_owned(),
        Method::Ablation => "The effects are exact: the model ran once per node with the node removed.".to_owned(),
        Method::PathPatching => {
            "The effects are exact for the paths to the receivers: the model ran once per node with those paths patched."
                .to_owned()
        }
        Method::LogitAttribution => {
            "The contributions are exact at the clean run's final norm scale. They leave out what a node does through \
             later layers."
                .to_owned()
        }
        Method::IntegratedGradients => {
            let gaps = found.completeness.iter().flat_map(|completeness| completeness.gap.iter());
            let largest = gaps.fold(0.0_f32, |largest, gap| largest.max(gap.abs()));
            format!(
                "Integrated gradients are estimates. Their sums differ from the change of the metric by at most {}; \
                 activation patching measures the effect of each node.",
                number(largest)
            )
        }
        Method::AttributionPatching => estimate(found, pairs),
    };
    match found.shortened.iter().flat_map(|shortened| &shortened.tables).max_by(|a, b| a.error.total_cmp(&b.error)) {
        None => exact,
        Some(table) => format!(
            "{exact} They were computed in numbers shorter than float32; the largest error in a sample is {} ({}, on the \
             scale of the metric).",
            number(table.error),
            table.name
        ),
    }
}

/// Returns how far attribution is from the exact effects of the verified nodes.
fn estimate(found: &Findings, pairs: &PromptPairs) -> String {
    if let Some(verified) = &found.verified_edges {
        return format!("The effects are estimates. {}.", EdgeAgreements::new(verified).in_words());
    }
    if has_edges(found) {
        return "The effects are estimates. --verify K patches the K edges of largest estimate exactly and measures the \
                error of each estimate."
            .to_owned();
    }
    if found.outcome.effects.is_empty() {
        return "The effects are first-order estimates. Path patching measures the effect of an edge exactly."
            .to_owned();
    }
    let agreements = agreements(found);
    let worst =
        agreements.iter().zip(&found.outcome.effects).enumerate().filter_map(|(table, (agreement, effects))| {
            agreement.errors.first().map(|node| (name(found, table, effects, &node.place, pairs), node.error()))
        });
    let Some((at, error)) = worst.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) else {
        return "The effects are first-order estimates. --verify K patches the K nodes of largest estimate exactly and \
                measures the error."
            .to_owned();
    };
    let pearson: Vec<String> = agreements
        .iter()
        .filter_map(|agreement| Some(format!("{:.3} ({})", agreement.pearson?, agreement.kind)))
        .collect();
    let pearson = match pearson.is_empty() {
        true => "has no Pearson correlation with them".to_owned(),
        false => format!("has a Pearson correlation with them of {}", pearson.join(", ")),
    };
    let compared: usize = agreements.iter().map(|agreement| agreement.compared).sum();
    format!(
        "The estimates of {compared} nodes were compared with exact effects. Attribution {pearson}; its largest error is \
         {} at {at}.",
        number(error)
    )
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};
    use rewire_analysis::Baselines;
    use rewire_analysis::node::{Component, NodeKind};
    use rewire_analysis::run::{Direction, Scale};
    use rewire_tasks::PromptPair;

    use super::*;

    fn pairs() -> PromptPairs {
        let pair = PromptPair { clean: vec![1, 2], corrupted: vec![3, 2], answers: vec![5], wrong_answers: vec![6] };
        PromptPairs::new(vec![pair]).unwrap()
    }

    fn found(method: Method, direction: Direction, values: Array3<f32>) -> Findings {
        let effects = Effects::new(NodeKind::all(Component::HeadZ), values.into_dyn(), vec![2]);
        Findings::of(Outcome {
            method,
            direction,
            scale: Scale::Metric,
            metric: "logit-diff",
            baselines: Baselines { clean: vec![1.0], corrupted: vec![0.0] },
            vanished: vec![],
            effects: vec![effects],
        })
    }

    fn first(method: Method, direction: Direction, values: Array3<f32>) -> String {
        let found = found(method, direction, values);
        let nodes: Vec<Ranked> = largest_nodes(&found, &pairs()).into_iter().map(|(_, node)| node).collect();
        largest_in_words(&nodes, noun(&found), Meaning::of(&found.outcome), "95% interval")
    }

    #[test]
    fn the_largest_effects_are_named_with_their_unit_and_role() {
        let values = array![[[0.25, -0.5], [0.0, 0.125]]];
        assert_eq!(
            first(Method::ActivationPatching, Direction::Denoising, values.clone()),
            "The largest effect is that of L0H1: -0.5000 logits. It opposes the behavior. Next are L0H0 (0.2500) and L1H1 \
             (0.1250)."
        );
        let others = [
            (Method::Ablation, "The largest effect is that of L0H1: -0.5000 logits. It supports"),
            (Method::IntegratedGradients, "The largest attribution is that of L0H1: -0.5000 logits. It supports"),
            (Method::AttributionPatching, "The largest estimated effect is that of L0H1: -0.5000 logits. It supports"),
            (Method::PathPatching, "The largest effect is that of L0H1: -0.5000 logits. It supports"),
            (Method::LogitAttribution, "The largest direct contribution is that of L0H1: -0.5000 logits. It opposes"),
        ];
        for (method, expected) in others {
            let sentence = first(method, Direction::Noising, values.clone());
            assert!(sentence.starts_with(expected), "{sentence}");
        }
    }

    #[test]
    fn a_sweep_of_nothing_but_rounding_says_it() {
        let expected = "All effects are below 1e-5 and may be float32 rounding.";
        assert_eq!(first(Method::ActivationPatching, Direction::Denoising, array![[[4e-6, -9e-6]]]), expected);
        assert_eq!(first(Method::Ablation, Direction::Noising, Array3::zeros((1, 2, 2))), expected);
    }

    #[test]
    fn the_interval_follows_the_value() {
        let node = Ranked { name: "L0H0".to_owned(), effect: 0.5, interval: Some([0.25, 0.75]) };
        let found = found(Method::ActivationPatching, Direction::Denoising, array![[[0.5]]]);
        let sentence = largest_in_words(&[node], "effect", Meaning::of(&found.outcome), "95% interval");
        assert!(sentence.contains("0.5000 logits (95% interval 0.2500 to 0.7500). It supports"), "{sentence}");
    }

    #[test]
    fn an_estimate_says_how_to_measure_its_error() {
        let sentence = |method| how_exact(&found(method, Direction::Denoising, array![[[0.5]]]), &pairs());
        assert!(sentence(Method::AttributionPatching).contains("--verify K"));
        assert!(sentence(Method::ActivationPatching).starts_with("The effects are exact"));
    }
}
