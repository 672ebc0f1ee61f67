//! Every method gives the same results on the backend that `REWIRE_DEVICE` names as on flex.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use rewire_analysis::integrated::IntegratedGradientsOptions;
use rewire_analysis::run::{Execution, Scale};
use rewire_model::{Transformer, WeightProcessing};
use rewire_tests::compare::{Tolerance, assert_within, scale};
use rewire_tests::fixture::Fixture;
use rewire_tests::methods::every_effect;
use rewire_tests::on_every_backend;

on_every_backend!(effects_match_those_on_flex);

/// For normalized effects: differences of metrics near 1, which two backends round differently.
const EFFECTS: Tolerance = Tolerance::new(5e-6, 2e-5);

fn effects_match_those_on_flex<B: Backend>() {
    for fixture in Fixture::all() {
        let of_flex: Transformer<Autodiff<burn_flex::Flex>> = fixture.model(WeightProcessing::default());
        let of_other: Transformer<Autodiff<B>> = fixture.model(WeightProcessing::default());
        let pairs = fixture.pairs(&of_flex);
        let expected = every_effect(
            &of_flex,
            &pairs,
            Scale::Normalized,
            &IntegratedGradientsOptions::default(),
            &Execution::default(),
        );
        // Uses the largest batches that fit, if the device reports its memory.
        let execution = Execution::default().fitted(&of_other, pairs.width(), None);
        let found =
            every_effect(&of_other, &pairs, Scale::Normalized, &IntegratedGradientsOptions::default(), &execution);
        assert!(expected.len() > 40, "only {} tables", expected.len());
        for ((name, expected), (_, found)) in expected.iter().zip(&found) {
            let tolerance = EFFECTS.times(scale(expected).max(1.0)).on::<B>();
            assert_within(found, expected, tolerance, &format!("{} {name}", fixture.name));
        }
    }
}
