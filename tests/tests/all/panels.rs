//! Lines that are divided into panels: their integrals, and gaps that stay.

use burn::backend::Flex;
use rewire_analysis::AnalysisError;
use rewire_analysis::integrated::{GapPolicy, IntegratedGradientsOptions, Quadrature, Rule, integrated_gradients};
use rewire_analysis::run::Execution;
use rewire_model::{Architecture, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
use rewire_tests::asked;
use rewire_tests::compare::{assert_within, scale};
use rewire_tests::memory::Memory;

use crate::integrated::{HEADS, NEURONS, ends, model, of_layers, smooth};

/// One node per panel is too few for any line that is not straight, so every family needs panels.
#[test]
fn integrals_over_panels_equal_a_fine_midpoint_sum_in_every_family() {
    for family in Architecture::ALL {
        let config = smooth(TransformerConfig::tiny(family));
        let pair = PromptPair {
            clean: vec![1, 2, 3, 4],
            corrupted: vec![1, 7, 3, 6],
            answers: vec![4],
            wrong_answers: vec![5],
        };
        let other =
            PromptPair { clean: vec![1, 5, 2], corrupted: vec![1, 3, 2], answers: vec![6], wrong_answers: vec![2] };
        let pairs = PromptPairs::new(vec![pair, other]).unwrap();
        let model = model(&config, 1);
        for (end, to_end) in ends() {
            let quadrature = Quadrature { rule: Rule::GaussLegendre, steps: 1 };
            let in_panels = IntegratedGradientsOptions {
                quadrature: quadrature.into(),
                tolerance: 1e-3,
                panels: 1024,
                ..to_end.clone()
            };
            let fine = Quadrature { rule: Rule::RiemannMiddle, steps: 400 };
            let fine = IntegratedGradientsOptions { quadrature: fine.into(), tolerance: f64::INFINITY, ..to_end };
            let nodes = [HEADS, NEURONS];
            let [found, expected] = [&in_panels, &fine].map(|integral| of_layers(&model, &pairs, &nodes, integral));
            let what = format!("{family:?} {end}");
            let divided = found.completeness.iter().flat_map(|complete| &complete.steps).any(|&steps| steps > 1);
            assert!(divided, "{what}: no line was divided");
            for kind in 0..nodes.len() {
                let [found, expected] = [&found, &expected].map(|i| &i.outcome.effects[kind].values);
                assert_within(found, expected, 5e-3 * scale(expected).max(0.01), &what);
            }
        }
    }
}

#[test]
fn gaps_that_stay_are_reported_if_the_policy_says_so() {
    let model = model(&TransformerConfig::gpt2(2, 2, 16, 17, 12), 3);
    let pair = PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 7, 3], answers: vec![4], wrong_answers: vec![5] };
    let pairs = PromptPairs::new(vec![pair]).unwrap();
    let metric = LogitDiff::new(&pairs);
    let memory = Memory::default();
    let execution = Execution { checkpoint: &memory, ..Execution::default() };
    let run = |integral: &IntegratedGradientsOptions<Flex>| {
        integrated_gradients(&model, asked(&pairs, &metric), &[HEADS], integral, &execution)
    };
    let quadrature = Quadrature { rule: Rule::RiemannLeft, steps: 2 };
    let report = IntegratedGradientsOptions {
        quadrature: quadrature.into(),
        tolerance: 1e-7,
        panels: 2,
        gaps: GapPolicy::Report,
        ..IntegratedGradientsOptions::default()
    };
    let found = run(&report).unwrap();
    let complete = &found.completeness[0];
    assert_eq!(complete.steps, [4, 4]);
    let missed = complete.missed();
    assert!(!missed.is_empty(), "a gap of 1e-7 cannot be met");
    for one in &missed {
        assert!(one.gap.abs() > one.allowed && one.gap == complete.gap[[one.prompt, one.layer]]);
        assert_eq!(one.change, complete.change[[one.prompt, one.layer]]);
    }
    // A stored line with such a gap is refused by the other policy, as a new one is.
    let refused = run(&IntegratedGradientsOptions { gaps: GapPolicy::Refuse, ..report }).unwrap_err();
    assert!(matches!(refused, AnalysisError::Incomplete { steps: 4, .. }), "{refused}");
    assert!(found.completeness.iter().all(|complete| complete.allowed.iter().all(|v| *v > 0.0)));
}
