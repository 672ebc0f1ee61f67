//! The finding of the example: where the fact is read out, which outputs write it, and how far
//! direct logit attribution is from the exact effects.

use ndarray::Array2;
use rewire_analysis::stats::Proportion;
use rewire_report::charts::{self, Chart, HeatMapLabels, Meaning};
use rewire_report::names::numbered;
use rewire_studies::facts::Patched;

use super::shown::{Found, by_position};
use crate::finding::Finding;
use crate::in_words::{COUNTS, Estimated, NamedEffect, how_far, percent, right_on, scaled, standing_out};

/// Returns the finding on the first pair.
pub(super) fn finding(found: &Found) -> Finding {
    Finding { sentences: sentences(found), figure: figure(found) }
}

/// Returns the sentences: whether the model does the task if it does not, where the residual stream
/// restores most, the outputs that stand out, and the errors of direct logit attribution with the
/// number of landmarks that the model knows.
fn sentences(found: &Found) -> Vec<String> {
    let (set, labels) = (&found.patched[0], &found.labels[0]);
    let [clean, corrupted] = set.outcome.baselines.means();
    let not_the_task = (clean <= corrupted).then(|| {
        format!(
            "The model does not know this fact, and the shares below say nothing about it: the logit of Paris minus \
             that of Rome is {clean:.4} on the clean prompt and {corrupted:.4} on the corrupted prompt."
        )
    });
    let which = standing_out(
        &outputs(set, labels),
        ["attention or MLP output", "attention and MLP outputs"],
        "when the corrupted run takes one of them from the clean run",
    );
    let method = "Direct logit attribution (no patching; scaled by least squares)";
    let nodes = ["output at the last position", "outputs at the last position"];
    let right = Proportion::of(found.facts.iter().map(|fact| fact.rank == 1));
    let far = format!(
        "{}; the model is {}, whose city is its likeliest next token.",
        how_far(method, nodes, &at_the_last_position(found, set)),
        right_on(right, "landmark")
    );
    not_the_task.into_iter().chain([read_out(set, labels), which, far]).collect()
}

/// Returns where the residual stream restores most: the layer from which on that is the last
/// position, and the position before.
fn read_out(set: &Patched, labels: &[String]) -> String {
    let stream = by_position(&set.outcome.effects[0]);
    let most: Vec<(usize, f32)> = stream.rows().into_iter().map(|row| largest(row.iter().copied())).collect();
    let on = format!("Against {} (one pair of prompts, so without an interval),", set.name);
    let last = labels.len() - 1;
    let at_the_end = most.iter().rev().take_while(|(position, _)| *position == last).count();
    let from = most.len() - at_the_end;
    let of_layer = |layer: usize| {
        let (position, effect) = most[layer];
        format!("at {} ({} of the clean-corrupted difference)", labels[position], percent(effect))
    };
    let largest_effect = most.iter().fold(0.0_f32, |m, (_, effect)| m.max(*effect));
    match (from, at_the_end) {
        _ if largest_effect < COUNTS => {
            format!("{on} no single position of the residual stream restores {:.0}% or more.", 100.0 * COUNTS)
        }
        (0, _) => {
            format!("{on} the residual stream restores most at the last position before every layer: {}.", of_layer(0))
        }
        (layers, 0) => format!(
            "{on} the residual stream never restores most at the last position: before the last layer it does so {}.",
            of_layer(layers - 1)
        ),
        (from, _) => format!(
            "{on} the residual stream before L{} restores most {}, and from L{from} on the last position restores \
             most, {}.",
            from - 1,
            of_layer(from - 1),
            of_layer(from)
        ),
    }
}

/// Returns the largest value and its index.
fn largest(values: impl Iterator<Item = f32>) -> (usize, f32) {
    values.enumerate().fold((0, f32::NEG_INFINITY), |best, at| if at.1 > best.1 { at } else { best })
}

/// Names of the patched outputs, in the order of the effects after the residual stream.
const OUTPUTS: [&str; 2] = ["attention", "MLP"];

/// Returns the exact effects of the outputs of attention and MLP by position.
fn outputs(set: &Patched, labels: &[String]) -> Vec<NamedEffect> {
    let maps: Vec<Array2<f32>> = set.outcome.effects[1..].iter().map(by_position).collect();
    let of_map = |(map, what): (&Array2<f32>, &str)| {
        let named = |((layer, position), effect): ((usize, usize), &f32)| {
            (format!("L{layer} {what} at {}", labels[position]), *effect)
        };
        map.indexed_iter().map(named).collect::<Vec<_>>()
    };
    maps.iter().zip(OUTPUTS).flat_map(of_map).collect()
}

/// Returns the outputs at the last position with their exact effects and their direct logit
/// attributions.
fn at_the_last_position(found: &Found, set: &Patched) -> Vec<Estimated> {
    let of = |(i, what): (usize, &str)| {
        let exact = by_position(&set.outcome.effects[i + 1]);
        let estimates = found.direct.effects[i + 1].mean();
        let last = exact.ncols() - 1;
        let node = |layer: usize| Estimated {
            name: format!("L{layer} {what}"),
            exact: exact[[layer, last]],
            estimate: estimates[[layer]],
        };
        (0..exact.nrows()).map(node).collect::<Vec<_>>()
    };
    scaled(OUTPUTS.into_iter().enumerate().flat_map(of).collect())
}

/// Returns the map of the residual stream by position on the first pair.
fn figure(found: &Found) -> Option<Chart> {
    let stream = by_position(&found.patched[0].outcome.effects[0]);
    let has_values = stream.iter().any(|v| *v != 0.0);
    let layers = numbered("L", stream.nrows());
    let labels = HeatMapLabels {
        rows: ("layer", &layers),
        columns: ("position", &found.labels[0]),
        reach: charts::color_limit([stream.view()]),
    };
    let title = format!("Residual stream before each layer, against {} (shares)", found.patched[0].name);
    has_values.then(|| charts::effect_map(&title, &stream.view(), labels, Meaning::of(&found.patched[0].outcome), None))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, ArrayD};
    use rewire_analysis::node::{Component, NodeKind};
    use rewire_analysis::run::{Direction, Scale};
    use rewire_analysis::{Baselines, Effects, Method, Outcome};
    use rewire_studies::facts::{self, Fact, Next};
    use rewire_tasks::{PromptPair, PromptPairs};

    use super::*;

    fn outcome(method: Method, clean: f32, effects: Vec<Effects>) -> Outcome {
        Outcome {
            method,
            direction: Direction::Denoising,
            scale: Scale::Normalized,
            metric: "logit-diff",
            baselines: Baselines { clean: vec![clean], corrupted: vec![0.0] },
            vanished: Vec::new(),
            effects,
        }
    }

    /// Returns results on two layers and three positions: `stream`, `attention` and `mlp` are exact
    /// effects by layer and position, `direct` are the attributions of attention and MLP by layer.
    fn results(clean: f32, [stream, attention, mlp]: [[[f32; 3]; 2]; 3], direct: [[f32; 2]; 2]) -> Found {
        let map = |component: Component, values: [[f32; 3]; 2]| {
            let values = Array3::from_shape_fn((1, 2, 3), |(_, layer, at)| values[layer][at]).into_dyn();
            Effects::new(NodeKind::by_position(component), values, vec![3])
        };
        let row = |component: Component, values: [f32; 2]| {
            let values = ArrayD::from_shape_vec(vec![1, 2], values.to_vec()).unwrap();
            Effects::new(NodeKind::all(component), values, Vec::new())
        };
        let exact =
            vec![map(Component::ResidPre, stream), map(Component::AttnOut, attention), map(Component::MlpOut, mlp)];
        let estimates = vec![
            row(Component::ResidPost, [0.0; 2]),
            row(Component::AttnOut, direct[0]),
            row(Component::MlpOut, direct[1]),
        ];
        let pair =
            PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 4, 3], answers: vec![5], wrong_answers: vec![6] };
        let next = || Next { likeliest: Vec::new(), answers: [(0.5, 1); 2] };
        let set = Patched {
            name: "the Colosseum",
            pairs: PromptPairs::new(vec![pair]).unwrap(),
            prompts: [String::new(), String::new()],
            next: [next(), next()],
            outcome: outcome(Method::ActivationPatching, clean, exact),
        };
        let fact = |rank| Fact { landmark: "", city: "", probability: 0.5, rank };
        Found {
            found: facts::Found {
                patched: vec![set],
                direct: outcome(Method::LogitAttribution, clean, estimates),
                bias: 0.0,
                facts: vec![fact(1), fact(3)],
            },
            labels: vec![["The_0", "Tower_1", "of_2"].map(str::to_owned).to_vec()],
            left_out: Vec::new(),
            warnings: Vec::new(),
        }
    }

    const ZERO: [[f32; 3]; 2] = [[0.0; 3]; 2];

    #[test]
    fn the_finding_names_the_layer_in_which_the_fact_moves_to_the_end() {
        let attention = [[0.0; 3], [0.0, 0.0, 0.9]];
        let mlp = [[0.0, 0.2, 0.0], [0.0, 0.0, 0.1]];
        let found = results(5.0, [[[0.0, 1.0, 0.0], [0.0, 0.1, 0.8]], attention, mlp], [[0.0, 9.0], [0.0, 1.0]]);
        assert_eq!(
            sentences(&found),
            [
                "Against the Colosseum (one pair of prompts, so without an interval), the residual stream before L0 \
                 restores most at Tower_1 (+100% of the clean-corrupted difference), and from L1 on the last position \
                 restores most, at of_2 (+80% of the clean-corrupted difference).",
                "3 of 12 attention and MLP outputs change the logit difference by 5% or more of the clean-corrupted \
                 difference when the corrupted run takes one of them from the clean run: L1 attention at of_2 (+90%), \
                 L0 MLP at Tower_1 (+20%) and L1 MLP at of_2 (+10%).",
                "Direct logit attribution (no patching; scaled by least squares) is close to the exact effects of 4 \
                 outputs at the last position (Pearson correlation 1.000), with no error of 1e-5 or more; the model is \
                 right on 1 of 2 landmarks, whose city is its likeliest next token.",
            ]
            .map(|text| text.to_owned())
        );
        assert!(figure(&found).is_some());
    }

    #[test]
    fn a_pair_on_which_nothing_matters_says_so() {
        let found = results(5.0, [ZERO; 3], [[0.0; 2]; 2]);
        let [stream, outputs, far] = sentences(&found).try_into().unwrap();
        assert!(stream.ends_with("no single position of the residual stream restores 5% or more."), "{stream}");
        assert!(outputs.starts_with("No attention or MLP output changes"), "{outputs}");
        assert!(far.contains("has no correlation with the exact effects"), "{far}");
        assert!(figure(&found).is_none(), "there is nothing to draw");
    }

    #[test]
    fn attribution_against_the_exact_effects_and_an_unknown_fact_are_named() {
        let attention = [[0.0, 0.0, 0.5], [0.0; 3]];
        let found = results(-1.0, [ZERO, attention, ZERO], [[-2.0, 1.0], [0.0, 1.0]]);
        let [unknown, _, _, far] = sentences(&found).try_into().unwrap();
        assert!(unknown.starts_with("The model does not know this fact"), "{unknown}");
        assert!(far.contains("does not follow") && far.contains("off by 5% or more at L0 attention"), "{far}");
    }
}
